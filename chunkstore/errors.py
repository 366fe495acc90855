"""What can go wrong with chunks and blobs, split by who is at fault.

::

    ChunkstoreError
    ├── Malformed        the caller's value: a digest, a blob id, a size that no blob can have
    ├── Missing          it is not there: no such blob, no such chunk
    ├── Changed          it is another one now: a file at a url that was replaced
    ├── Corrupt          it is there and wrong: bytes that do not match their digest or their codec
    ├── Unreachable      nobody answered, or too late: origins, peers, time-outs
    │   └── Refused      somebody answered no: credentials, permissions
    └── CacheUnusable    the cache folder: owner, mode, a file that is not ours

An error carries facts (digest, blob id, source), never an errno or a status: each boundary
translates once.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path


class ChunkstoreError(Exception):
    """A chunk or blob could not be had."""


class Malformed(ChunkstoreError, ValueError):
    """A value from outside is not what it says it is."""


class Missing(ChunkstoreError):
    """The blob or chunk is not there."""


class Changed(ChunkstoreError):
    """The origin has another file under this name than before."""


class Corrupt(ChunkstoreError):
    """The bytes are there and do not match what they must be."""


class Unreachable(ChunkstoreError):
    """The source did not answer, or not in time."""

    def __init__(self, *facts: object, retry_after: float | None = None) -> None:
        super().__init__(*facts)
        self.retry_after = retry_after
        """Seconds after which the source asked to be tried again, if it did."""


class Refused(Unreachable):
    """The source answered that it will not."""


class CacheUnusable(ChunkstoreError):
    """The cache folder cannot be used as it is."""


_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of writing, which do not say where."""


def name_place(exc: BaseException, place: Path) -> None:
    """Have an error of a disk that is full say where that was, if it says nothing."""
    if isinstance(exc, OSError) and exc.errno in _FULL and exc.filename is None:
        exc.filename = os.fspath(place)
