"""Beginnings: a file whose first chunk is read is fetched on behind that, as far as a program goes.

The kernel reads programs and libraries page by page as they are entered, and waits for each chunk
anew. Whoever reads a file's beginning mostly goes on, and so does who reads on behind what is here;
so what follows comes in the same request. Who reads here and there in a large file finds nothing
before the chunk that it misses, and gets no more. Where files begin a blob's chunks tell by
themselves: a file's lie one behind the other, and all but its last are as large as the image's
chunks are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from chunkstore import Blob, Buffer, Chunk, Extent
from rafs import Bootstrap, ChunkMap

from .tree import Reader

LIMIT = 8 << 20
"""Bytes that follow: more than most programs and libraries have, and cheap enough to be wrong."""


class Beginnings:
    """A `tree.Reader` that fetches files on."""

    def __init__(self, reader: Reader, image: Bootstrap) -> None:
        self.look = reader.look
        self.has = reader.has
        self.want = reader.want
        self.expect = reader.expect
        self.held = reader.held
        self.let_go = reader.let_go
        self.hasten = reader.hasten
        self.from_disk = reader.from_disk
        self.lend = reader.lend
        self._reader = reader
        self._whole = image.chunk_size
        self._maps: Mapping[str, ChunkMap] = {
            blob.id: image.chunks(number) for number, blob in enumerate(image.blobs)
        }

    async def read(self, extents: Sequence[Extent]) -> Buffer:
        """Return the bytes of *extents*, which are not all here; raises ChunkstoreError."""
        for extent in extents:
            if extent.blob is not None and extent.chunk is not None:
                following = list(self._following(extent.blob, extent.chunk))
                if following:
                    self._reader.want(extent.blob, following)
        return await self._reader.read(extents)

    def _following(self, blob: Blob, chunk: Chunk) -> Iterator[Chunk]:
        """Yield what follows *chunk* in its file, if it begins it or goes on from what is here."""
        chunks = self._maps[blob.id]
        before = chunks.get(chunk.index - 1) if chunk.index else None
        if before is not None and before.size == self._whole and not self._is_here(blob, before):
            return
        last, size = chunk, chunk.size
        while last.size == self._whole and size < LIMIT:
            after = chunks.get(last.index + 1)
            if after is None:
                return
            yield after
            last, size = after, size + after.size

    def _is_here(self, blob: Blob, chunk: Chunk) -> bool:
        return self._reader.has([Extent(blob, chunk, 0, chunk.size)])

    def __repr__(self) -> str:
        return f"Beginnings({self._reader!r})"
