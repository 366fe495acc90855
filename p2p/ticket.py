"""Ticket: one request for a piece at one parent."""

from __future__ import annotations

from typing import Protocol

from chunkstore import Buffer, Corrupt

from .choosing.choice import Ask
from .messages import Body
from .packing import pays, unpack
from .wire import Kind, Priority, Request
from .wishes import Wish


class Taker(Protocol):
    """Whose request it is."""

    def rate(self, host: bytes) -> float:
        """Return the bytes per second that *host* was seen to send; 0: not known yet."""
        ...

    def began(self, ask: Ask, size: int) -> None:
        """Note that a piece of *size* bytes begins to come."""
        ...

    async def came(self, ask: Ask, wish: Wish, data: Buffer, stored_size: int) -> None:
        """Take a piece that a parent sent."""
        ...

    def damaged(self, ask: Ask, reason: str) -> None:
        """Note that what a parent sent is no piece at all."""
        ...

    def refused(self, ask: Ask, kind: Kind, body: Body | None) -> None:
        """Note an answer that is no piece."""
        ...

    def lost(self, ask: Ask) -> None:
        """Note that the session ended first."""
        ...


class Ticket:
    """One request at one parent."""

    def __init__(self, taker: Taker, ask: Ask, wish: Wish) -> None:
        self._taker = taker
        self._ask = ask
        self._wish = wish
        self.most = wish.chunk.size

    def request(self, handle: int) -> Request:
        """Return the request as it is sent."""
        chunk = self._wish.chunk
        return Request(
            handle,
            chunk if self._wish.known else None,
            chunk.index,
            Priority(self._ask.priority),
            lz4=self._wish.known and pays(chunk, self._taker.rate(self._ask.host)),
            size=chunk.size,
            offset=chunk.offset,
        )

    def began(self, size: int) -> None:
        """Note that the piece begins to come."""
        self._taker.began(self._ask, size)

    async def came(self, data: memoryview, *, lz4: bool) -> None:
        """Take the piece."""
        plain: Buffer = data
        if lz4:
            try:
                plain = unpack(data, self._wish.chunk.size)
            except Corrupt as exc:
                self._taker.damaged(self._ask, str(exc))
                return
        await self._taker.came(self._ask, self._wish, plain, len(data))

    def refused(self, kind: Kind, body: Body | None) -> None:
        """Take an answer that is no piece."""
        self._taker.refused(self._ask, kind, body)

    def lost(self, reason: str) -> None:
        """Note that there will be none."""
        self._taker.lost(self._ask)
