"""A shelf: where one image finds and puts the chunks of one blob.

A chunk lies in the blob's shared file if the slot there is claimed for exactly this digest, place
and size; an image whose chunk differs from the claimed one keeps it apart, in a file of its own, so
that no image can poison or read what another one has cached under the same blob id.

What was compared once is remembered, so that finding a ready chunk is a look at its state byte.
"""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from .blobcache import BlobCache
from .cachefile import CacheFile
from .chunk import Blob, Chunk
from .digest import Buffer, Digest
from .errors import Corrupt
from .readymap import IN_USE, READY, UNVERIFIED

logger = logging.getLogger(__name__)

_REMEMBERED = 1 << 16
"""Chunks whose slots are known to be theirs; 64 GiB of 1 MiB chunks. Past it, all are forgotten."""


class BlobShelf(Protocol):
    """Where one image finds and puts the chunks of one blob: what ``Shelf`` is."""

    def find(self, chunk: Chunk) -> CacheFile | None:
        """Return the file in which *chunk* is ready."""
        ...

    def put(self, chunk: Chunk, data: Buffer, *, use: int = IN_USE) -> bool:
        """Check *data* and keep it; False where that is impossible. Raises Corrupt, OSError."""
        ...

    def doubts(self, chunk: Chunk) -> bool:
        """Say whether *chunk* may be here, but must be verified first."""
        ...

    def verify(self, chunk: Chunk) -> bool:
        """Verify such a chunk; say whether it is ready now."""
        ...

    def forget(self, chunk: Chunk) -> None:
        """Treat *chunk* as missing from now on."""
        ...

    @property
    def quick(self) -> bool:
        """Whether a small chunk can be put without waiting."""
        ...

    @property
    def files(self) -> tuple[CacheFile, ...]:
        """The files that may hold chunks."""
        ...

    def close(self) -> None:
        """Give the files back."""
        ...


class OpenShelf(Protocol):
    """Opens shelves: what the class ``Shelf`` is."""

    def __call__(self, cache: BlobCache, blob: Blob, owner: Digest, /) -> BlobShelf:
        """Open the shelf of a blob for the image *owner*; raises OSError."""
        ...

    def check(self, chunk: Chunk, data: Buffer, /) -> None:
        """Raise Corrupt unless *data* may be *chunk*'s: for those that no shelf can keep."""
        ...


class Shelf:
    """One image's chunks of one blob in the cache.

    Tasks: any thread may call any method.
    """

    def __init__(self, cache: BlobCache, blob: Blob, owner: Digest) -> None:
        """Open the files; raises OSError when there is no room for them."""
        self._cache = cache
        self._blob = blob
        self._owner = owner
        self._known: dict[int, tuple[Chunk, CacheFile]] = {}
        self.shared = cache.open(blob)
        self.apart: CacheFile | None = None
        self._parting = threading.Lock()
        try:
            if cache.place(blob.id, owner).map.exists():
                self.apart = cache.open(blob, owner)
        except OSError:
            cache.close_file(self.shared)
            raise

    @staticmethod
    def check(chunk: Chunk, data: Buffer) -> None:
        """Raise Corrupt unless *data* is *chunk*'s."""
        check(chunk, data)

    def find(self, chunk: Chunk) -> CacheFile | None:
        """Return the file in which *chunk* is ready.

        The caller then shares its lease and looks again. Waits for no more than a record's page.
        """
        index = chunk.index
        known = self._known.get(index)
        if known is not None and (known[0] is chunk or _same(known[0], chunk)):
            file = known[1]
            if file.map.states[index] == READY:
                file.map.uses[index] = IN_USE
                return file
            self._known.pop(index, None)  # its record's mark must be looked at again
        for file in self.files:
            if file.holds(chunk):
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[index] = (chunk, file)
                file.map.uses[index] = IN_USE
                return file
        return None

    def put(self, chunk: Chunk, data: Buffer, *, use: int = IN_USE) -> bool:
        """Check *data* and keep it; False where neither file may hold it.

        Raises Corrupt when it does not match, OSError when there is no room or the disk fails.
        """
        check(chunk, data)
        if self.shared.put(chunk, data, use=use):
            return True
        if not self.shared.admits(chunk):
            return False
        return self._part(chunk).put(chunk, data, use=use)

    def verify(self, chunk: Chunk) -> bool:
        """Verify *chunk* if it is here but doubtful since a crash; say whether it is ready now."""
        return any(file.verify(chunk) for file in self.files if _doubtful(file, chunk))

    def doubts(self, chunk: Chunk) -> bool:
        """Say whether *chunk* may be here, but must be verified first."""
        return any(_doubtful(file, chunk) for file in self.files)

    def forget(self, chunk: Chunk) -> None:
        """Treat *chunk* as missing from now on: its bytes cannot be read."""
        file = self.find(chunk)
        if file is not None:
            file.drop(chunk.index)

    @property
    def quick(self) -> bool:
        """Whether a small chunk can be put without waiting for the disk or an evictor."""
        return all(file.quick for file in self.files)

    @property
    def files(self) -> tuple[CacheFile, ...]:
        """The files that may hold this image's chunks."""
        return (self.shared,) if self.apart is None else (self.shared, self.apart)

    def _part(self, chunk: Chunk) -> CacheFile:
        """Return the file apart, opening it for the first chunk that the shared one refuses."""
        with self._parting:
            if self.apart is None:
                self.apart = self._cache.open(self._blob, self._owner)
                logger.warning("chunks kept apart blob=%s first=%d", self._blob.id, chunk.index)
            return self.apart

    def close(self) -> None:
        """Give the files back; may wait for the disk."""
        for file in self.files:
            self._cache.close_file(file)


def check(chunk: Chunk, data: Buffer) -> None:
    """Raise Corrupt unless *data* is *chunk*'s."""
    if len(data) != chunk.size:
        raise Corrupt(f"chunk {chunk.index}: {len(data)} bytes, not {chunk.size}")
    if not chunk.digest.matches(data):
        raise Corrupt(f"chunk {chunk.index} does not match {chunk.digest}")


def _same(one: Chunk, other: Chunk) -> bool:
    return (
        one.digest.raw == other.digest.raw
        and one.offset == other.offset
        and one.size == other.size
        and one.digest.algorithm is other.digest.algorithm
    )


def _doubtful(file: CacheFile, chunk: Chunk) -> bool:
    return chunk.index < file.map.chunk_count and file.map.states[chunk.index] == UNVERIFIED
