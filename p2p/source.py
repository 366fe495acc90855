"""PeerSource: a chunk source that asks the swarm, and the origin where the swarm says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from chunkstore import Blob, Chunk, ChunkSource, Deliver
from chunkstore.demand import Demand
from chunkstore.ledger import Ledger
from chunkstore.wanted import Key, key_of

from .download import Download
from .wishes import Everything, Wish

Joining = Callable[[Blob], Awaitable[Download | None]]
"""Returns the part that this host takes in a blob's task; None where there is no swarm."""


class PeerSource:
    """One image's chunks out of the swarm.

    Behind a grant, and without a scheduler, stands *origin*: it is counted and retried by itself.
    """

    def __init__(self, joining: Joining, origin: ChunkSource, ledger: Ledger) -> None:
        self._joining = joining
        self._origin = origin
        self._ledger = ledger
        self._demand = Demand()
        self._downloads: dict[str, Download] = {}

    def watch(self, demand: Demand) -> None:
        """Hurry for what *demand* says that readers wait for."""
        self._demand = demand
        demand.listen(self._hurry)

    async def fetch(self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver) -> None:
        """Deliver *chunks* as they come; raises ChunkstoreError."""
        download = self._downloads.get(blob.id) or await self._joining(blob)
        if download is None:
            await self._origin.fetch(blob, chunks, deliver)
            return
        self._downloads[blob.id] = download
        wishes, taken = [], []
        for chunk in chunks:
            if download.wished(chunk.index):
                taken.append(chunk)
            else:
                wishes.append(Wish(blob, chunk, deliver, self._origin, self._count))
        await download.bring(wishes, self._urgent)
        taken += [wish.chunk for wish in wishes if wish.elsewhere]
        if taken:
            # Another store's wish for these was waited for long enough, or is for another chunk
            # of that number; or such a chunk is here.
            await self._origin.fetch(blob, taken, deliver)

    async def take_all(
        self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver, patience: float
    ) -> bool:
        """Bring all of a blob, in whatever order is best for all hosts together.

        *chunks* are by their index. False where that is impossible, or when there was no scheduler
        for *patience* seconds.
        """
        download = await self._joining(blob)
        if download is None or [chunk.index for chunk in chunks] != list(range(blob.chunk_count)):
            return False
        self._downloads[blob.id] = download
        download.take_all(Everything(blob, chunks, deliver, self._origin, self._count))
        return await download.completed(patience)

    def _urgent(self, wish: Wish) -> bool:
        return key_of(wish.blob, wish.chunk) in self._demand

    def _hurry(self, key: Key) -> None:
        download = self._downloads.get(key[0])
        if download is not None:
            download.hurry(key[1])

    def _count(self, size: int, stored_size: int) -> None:
        self._ledger.add("peer", chunks=1, size=size, stored_size=stored_size)

    def __repr__(self) -> str:
        return f"PeerSource({self._origin!r})"
