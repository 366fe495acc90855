"""Direct: reads an image's chunks straight from its origin, verified, and keeps the last few."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from chunkstore import Blob, Buffer, Chunk, Corrupt, Extent, Origin
from chunkstore.codec import decode, slice_of

from .places import ignore

_KEPT = 64
"""Chunks."""


class Direct:
    """What a file's bytes come from where there is no cache."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._kept: OrderedDict[tuple[str, int], Buffer] = OrderedDict()
        self.fetched = 0
        """Stored bytes read from the origin so far."""

    def look(self, extents: Sequence[Extent]) -> Buffer | None:
        """Return the bytes of *extents* if they are among the last ones."""
        parts: list[Buffer] = []
        for extent in extents:
            if extent.blob is None or extent.chunk is None:
                parts.append(bytes(extent.size))
                continue
            plain = self._kept.get((extent.blob.id, extent.chunk.index))
            if plain is None:
                return None
            parts.append(memoryview(plain)[extent.start : extent.stop])
        return b"".join(parts)

    async def read(self, extents: Sequence[Extent]) -> Buffer:
        """Return the bytes of *extents*, one chunk after the other."""
        parts: list[Buffer] = []
        for extent in extents:
            if extent.blob is None or extent.chunk is None:
                parts.append(bytes(extent.size))
            else:
                plain = await self._chunk(extent.blob, extent.chunk)
                parts.append(memoryview(plain)[extent.start : extent.stop])
        return b"".join(parts)

    def want(self, blob: Blob, chunks: Sequence[Chunk]) -> None:
        """Fetch nothing ahead."""

    async def _chunk(self, blob: Blob, chunk: Chunk) -> Buffer:
        plain = self._kept.get((blob.id, chunk.index))
        if plain is not None:
            return plain
        stored = bytearray(chunk.stored_size)
        await self._origin.read(blob.id, chunk.stored_offset, memoryview(stored), ignore)
        self.fetched += len(stored)
        plain = slice_of(chunk, decode(chunk.codec, stored, chunk.unit_size or chunk.size))
        if not chunk.digest.matches(plain):
            raise Corrupt(f"blob {blob.id}: chunk {chunk.index} does not match its digest")
        self._kept[blob.id, chunk.index] = plain
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return plain
