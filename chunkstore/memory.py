"""Origins and chunk sources that hold everything in memory: for tests and for small things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio

from .chunk import Blob, Chunk
from .digest import Buffer, Digest
from .errors import ChunkstoreError, Corrupt, Missing
from .source import Arrived, Deliver


class MemoryOrigin:
    """Stored blobs by id; counts what was asked of it."""

    def __init__(self, blobs: Mapping[str, Buffer], *, step: int = 256 << 10) -> None:
        self.blobs = dict(blobs)
        self.step = step
        """Bytes that arrive at a time."""
        self.requests: list[tuple[str, int, int]] = []
        """Blob id, start and stop of every range read so far."""

    async def read(self, blob_id: str, start: int, into: memoryview, arrived: Arrived) -> None:
        """Copy the range; raises Missing for a blob and Corrupt for a range that is not there."""
        stop = start + len(into)
        self.requests.append((blob_id, start, stop))
        data = memoryview(self._blob(blob_id))
        if stop > len(data):
            raise Corrupt(f"blob {blob_id} has {len(data)} bytes, asked for {start}-{stop}")
        for done in range(0, len(into), self.step):
            part = data[start + done : min(start + done + self.step, stop)]
            into[done : done + len(part)] = part
            arrived(done + len(part))
            await trio.lowlevel.checkpoint()

    async def size(self, blob_id: str) -> int:
        """Return the stored bytes of a blob; raises Missing."""
        await trio.lowlevel.checkpoint()
        return len(self._blob(blob_id))

    def _blob(self, blob_id: str) -> Buffer:
        try:
            return self.blobs[blob_id]
        except KeyError:
            raise Missing(f"no blob {blob_id} in memory") from None

    def __repr__(self) -> str:
        return f"MemoryOrigin({len(self.blobs)} blobs)"


class MemoryChunks:
    """Decoded chunks by digest, as a peer that has some of them."""

    def __init__(self, chunks: Mapping[Digest, Buffer]) -> None:
        self.chunks = dict(chunks)
        self.fetched: list[Chunk] = []
        """Every chunk asked for so far."""

    async def fetch(self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver) -> None:
        """Deliver what is here; raises Missing, or what *deliver* raised, after trying all."""
        await trio.lowlevel.checkpoint()
        failure: ChunkstoreError | None = None
        for chunk in chunks:
            self.fetched.append(chunk)
            data = self.chunks.get(chunk.digest)
            if data is None:
                failure = Missing(f"chunk {chunk.index} of blob {blob.id} is not in memory")
                continue
            try:
                await deliver(chunk, data)
            except ChunkstoreError as exc:
                failure = exc
        if failure is not None:
            raise failure

    def __repr__(self) -> str:
        return f"MemoryChunks({len(self.chunks)} chunks)"
