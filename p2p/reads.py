"""Reads: what a task takes from its origin, because a grant says so or nobody else has it.

Tasks: one per source and decision, in the nursery of whoever runs the task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, MutableMapping, Sequence

import trio

from chunkstore import Buffer, Chunk, ChunkSource, ChunkstoreError, Corrupt, Missing, Refused

from .choosing.chooser import Chooser
from .holdings import Holding
from .wishes import Wish, Wishes

TRIES = 3
"""Failures of the origin after which a chunk that no parent has is given up."""


class Reads(Wishes, ABC):
    """A task's wishes, and how its origin fulfils them."""

    def __init__(
        self, chooser: Chooser, holding: Holding, received: MutableMapping[str, int] | None
    ) -> None:
        """Start nothing; bytes that come are added to *received*."""
        super().__init__(chooser)
        self._holding = holding
        self._received = {} if received is None else received
        self._nursery: trio.Nursery | None = None

    @abstractmethod
    def act(self) -> None:
        """Ask the chooser what to do now, and do it."""

    def _read(self, pieces: Iterable[int]) -> None:
        """Start to read pieces from the origin, those of one source together."""
        by_origin: dict[ChunkSource, list[Wish]] = {}
        for piece in pieces:
            wish = self._wish(piece)
            if wish is None:
                self.chooser.unfetched(piece, "nobody wants it any more", trio.current_time())
                self._again = True
            else:
                by_origin.setdefault(wish.origin, []).append(wish)
        for origin, wishes in by_origin.items():
            assert self._nursery is not None
            self._nursery.start_soon(self._read_together, origin, wishes)

    async def _read_together(self, origin: ChunkSource, wishes: Sequence[Wish]) -> None:
        left = {wish.chunk.index: wish for wish in wishes}

        async def deliver(chunk: Chunk, data: Buffer) -> None:
            wish = self._wishes.get(chunk.index, left[chunk.index])
            if not wish.done.is_set():
                await self._deliver(wish, data)
            left.pop(chunk.index, None)
            self._received["origin"] = self._received.get("origin", 0) + len(data)
            self._landed(wish)
            self.chooser.fetched(chunk.index, trio.current_time())
            self._holding.note(chunk.index)
            self.act()

        chunks = [wish.chunk for wish in wishes]
        failure: ChunkstoreError = Missing(f"blob {wishes[0].blob.id}: the origin gave nothing")
        try:
            await origin.fetch(wishes[0].blob, chunks, deliver)
        except ChunkstoreError as exc:
            failure = exc
        for piece, wish in left.items():
            self._unread(piece, wish, failure)
        self.act()

    def _unread(self, piece: int, wish: Wish, failure: ChunkstoreError) -> None:
        """Note that the origin failed; give up where nobody else can help, or never will."""
        self.chooser.unfetched(piece, str(failure)[:200] or "failed", trio.current_time())
        wish.failures += 1
        lasting = isinstance(failure, Missing | Corrupt | Refused)
        held = any(link.have >> piece & 1 for link in self.chooser.links.values())
        if not held and (lasting or wish.failures >= TRIES):
            self._end(wish, failure)
