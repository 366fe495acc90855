"""What can go wrong with an image's metadata, split by who is at fault.

::

    RafsError
    ├── BadImage         the bootstrap or blob tail: names the structure and the byte offset
    │   └── Unsupported  a well-formed image that uses something naiad does not read
    ├── BadSource        what an image is to be built from: names the file or entry
    ├── NoEntry          the caller's path or node: no such name
    └── WrongKind        the caller's operation does not fit the inode (a directory read as a file)
"""

from __future__ import annotations

from typing import Self


class RafsError(Exception):
    """Something is wrong with an image's metadata."""


class BadImage(RafsError):
    """The image breaks its format; the message names the structure and the byte offset."""

    structure = "image"
    offset = 0
    what = ""

    @classmethod
    def at(cls, structure: str, offset: int, what: str) -> Self:
        """Say *what* is wrong with the *structure* that starts at byte *offset*."""
        error = cls(f"{structure} at byte {offset}: {what}")
        error.structure, error.offset, error.what = structure, offset, what
        return error


class Unsupported(BadImage):
    """The image uses a part of the format that naiad does not read."""


class BadSource(RafsError):
    """The source of a build cannot be used; the message names the entry."""


class NoEntry(RafsError):
    """There is no such name or node."""


class WrongKind(RafsError):
    """The operation does not fit this kind of inode."""
