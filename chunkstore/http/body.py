"""Body: the ways in which an answer says where it ends."""

from __future__ import annotations

from typing import Protocol

import h11

from chunkstore.bucket import Bucket

from .wire import Wire

_RECEIVE = 64 << 10
"""Bytes asked for at once where h11 must see them."""


class FramingError(Exception):
    """The bytes on the wire are not the HTTP that was announced."""


class Body(Protocol):
    """The bytes of one answer."""

    length: int | None

    @property
    def is_over(self) -> bool:
        """Say whether it ended as announced, and the wire is good for another request."""
        ...

    async def receive_into(self, into: memoryview) -> int:
        """Receive at least one byte; return how many, 0 at the end.

        Raises OSError, or FramingError.
        """
        ...


class Sized:
    """A body whose length was announced; received without a copy."""

    def __init__(self, wire: Wire, early: bytes, length: int, *, is_kept: bool) -> None:
        self._wire = wire
        self._early = early[:length]
        self._left = length
        self._is_kept = is_kept and len(early) <= length
        self.length: int | None = length

    @property
    def is_over(self) -> bool:
        """Say whether all of it was received."""
        return self._is_kept and not self._left

    async def receive_into(self, into: memoryview) -> int:
        """Receive at least one byte; return how many, 0 at the end."""
        if len(into) > self._left:
            into = into[: self._left]
        if not into:
            return 0
        if self._early:
            count = min(len(into), len(self._early))
            into[:count] = self._early[:count]
            self._early = self._early[count:]
        else:
            count = await self._wire.receive_into(into, certain=True)
        if not count:
            raise FramingError(f"cut off {self._left} bytes before its end")
        self._left -= count
        return count


class Chunked:
    """A body in chunks, which h11 takes apart."""

    length: int | None = None

    def __init__(self, wire: Wire, talk: h11.Connection, *, is_kept: bool) -> None:
        self._wire = wire
        self._talk = talk
        self._is_kept = is_kept
        self._spare = memoryview(b"")
        self._buffer = bytearray(_RECEIVE)
        self._ended = False

    @property
    def is_over(self) -> bool:
        """Say whether the last chunk was received, and nothing behind it."""
        return self._is_kept and self._ended and not self._talk.trailing_data[0]

    async def receive_into(self, into: memoryview) -> int:
        """Receive at least one byte; return how many, 0 at the end."""
        while not self._spare and not self._ended:
            await self._advance()
        count = min(len(into), len(self._spare))
        into[:count] = self._spare[:count]
        self._spare = self._spare[count:]
        return count

    async def _advance(self) -> None:
        try:
            event = self._talk.next_event()
            if event is h11.NEED_DATA:
                count = await self._wire.receive_into(memoryview(self._buffer))
                self._talk.receive_data(bytes(memoryview(self._buffer)[:count]))
            elif isinstance(event, h11.Data):
                self._spare = memoryview(event.data)
            else:
                self._ended = True
        except h11.RemoteProtocolError as exc:
            raise FramingError(f"bad chunks: {exc}") from exc


class UntilClosed:
    """A body that ends where the connection does, so that a cut cannot be told from the end."""

    length: int | None = None
    is_over = False

    def __init__(self, wire: Wire, early: bytes) -> None:
        self._wire = wire
        self._early = early

    async def receive_into(self, into: memoryview) -> int:
        """Receive at least one byte; return how many, 0 at the end."""
        if not self._early:
            return await self._wire.receive_into(into)
        count = min(len(into), len(self._early))
        into[:count] = self._early[:count]
        self._early = self._early[count:]
        return count


class Slowed:
    """A body that is received no faster than a bucket allows, which its server feels."""

    def __init__(self, body: Body, bucket: Bucket) -> None:
        self._body = body
        self._bucket = bucket
        self.length = body.length

    @property
    def is_over(self) -> bool:
        """Say whether the body came to its end."""
        return self._body.is_over

    async def receive_into(self, into: memoryview) -> int:
        """Receive at least one byte, then wait until that many were allowed."""
        count = await self._body.receive_into(into[: self._bucket.step])
        await self._bucket.take(count)
        return count
