"""Wishes: the chunks of a task that are to come, and who waits for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from chunkstore import Blob, Buffer, Chunk, ChunkSource, ChunkstoreError, Deliver

from .choosing.chooser import Chooser


@dataclass(slots=True, eq=False)
class Wish:
    """A chunk that is to come."""

    blob: Blob
    chunk: Chunk
    deliver: Deliver
    origin: ChunkSource
    counted: Callable[[int, int], None]
    """Told the bytes of a chunk that a peer gave, and those of them that came over the wire."""
    known: bool = True
    """Its digest is; else it can be had from the source only."""
    done: trio.Event = field(default_factory=trio.Event)
    failure: ChunkstoreError | None = None
    failures: int = 0
    """Of the origin."""
    arriving: bool = False
    """Its bytes are being delivered."""
    elsewhere: bool = False
    """It was not delivered, because something else brought what has its number."""

    def end(self, failure: ChunkstoreError | None = None) -> None:
        """Let whoever waits go on."""
        if not self.done.is_set():
            self.failure = failure
            self.done.set()


@dataclass(frozen=True, slots=True)
class Everything:
    """All of a task's chunks, to be had whether or not anybody asks."""

    blob: Blob
    chunks: Sequence[Chunk]
    """By their index."""
    deliver: Deliver
    origin: ChunkSource
    counted: Callable[[int, int], None]

    def wish(self, piece: int) -> Wish:
        """Return a wish for one of them."""
        return Wish(self.blob, self.chunks[piece], self.deliver, self.origin, self.counted)


class Wishes:
    """All of a task's that are not fulfilled."""

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser
        self._wishes: dict[int, Wish] = {}
        self._everything: Everything | None = None

    def wished(self, piece: int) -> Wish | None:
        """Return the wish for a piece, if there is one."""
        return self._wishes.get(piece)

    def _wish(self, piece: int) -> Wish | None:
        wish = self._wishes.get(piece)
        if wish is None and self._everything is not None:
            wish = self._everything.wish(piece)
        return wish

    def _look(self, wish: Wish) -> None:
        """End a wish that nobody will be asked for: its number is held."""
        if self.chooser.held >> wish.chunk.index & 1 and not wish.arriving:
            wish.elsewhere = True
            self._landed(wish)

    async def _deliver(self, wish: Wish, data: Buffer) -> None:
        """Deliver a chunk; raises ChunkstoreError."""
        wish.arriving = True
        try:
            await wish.deliver(wish.chunk, data)
        except ChunkstoreError:
            wish.arriving = False
            self._look(wish)
            raise

    def _landed(self, wish: Wish) -> None:
        if self._wishes.get(wish.chunk.index) is wish:
            del self._wishes[wish.chunk.index]
        wish.end()

    def _end(self, wish: Wish, failure: ChunkstoreError) -> None:
        """Give a wish up."""
        if self._wishes.get(wish.chunk.index) is wish:
            del self._wishes[wish.chunk.index]
            self.chooser.unwant(wish.chunk.index)
        wish.end(failure)
