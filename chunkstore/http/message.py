"""Request and Response: one question to a server and its answer.

h11 writes the request's head and reads the answer's; a body with a length then goes from the wire
into the caller's memory without passing through it. Chunked bodies go through h11.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from chunkstore.bucket import Bucket
from chunkstore.digest import Buffer
from chunkstore.errors import Corrupt, Unreachable
from chunkstore.source import Arrived

from .answers import failure
from .body import Body, FramingError, Slowed
from .url import Url

_QUANTUM = 16 << 10
"""Bytes that count as progress: a server that drips less per deadline is a stalled one."""

_DRAIN = 64 << 10
"""Bytes of an unwanted answer that are read to keep its connection: cheaper than a new one."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a server may take; seconds."""

    connect: float = 10.0
    """For a name, a connection, a proxy and TLS together."""
    progress: float = 30.0
    """For the head of an answer, and for every 16 KiB that are received or sent."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that is sent as it is made."""

    size: int
    parts: Callable[[], AsyncGenerator[Buffer, None]]
    """Begins again at the first byte with every call, so that a request can be repeated."""


@dataclass(frozen=True, slots=True)
class Request:
    """A question to a server."""

    method: str
    url: Url
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    authorization: str | None = field(default=None, repr=False)
    """Sent to this url's host, port and scheme only, wherever a redirect leads."""
    body: Upload | bytes | None = field(default=None, repr=False)
    patience: float | None = None
    """Seconds without progress, where the client's are not right."""
    private: frozenset[str] = frozenset()
    """Names of headers, in lower case, that no other site is shown, besides the usual ones."""

    is_redirected: bool = False
    """Whether another site led here: this one is not shown who we are."""

    @property
    def is_repeatable(self) -> bool:
        """Say whether asking twice does no harm."""
        return self.method in ("GET", "HEAD")


class Pace:
    """Counts the time that was waited for a server since it last made progress."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._waited = 0.0
        self._began = 0.0
        self._count = 0

    def wait(self) -> trio.CancelScope:
        """Return the scope to wait in; it ends when the server's time is up."""
        self._began = trio.current_time()
        return trio.CancelScope(deadline=self._began + self.patience - self._waited)

    def waited(self) -> None:
        """Note that the wait is over: what the caller does next is not the server's time."""
        self._waited += trio.current_time() - self._began

    def moved(self, count: int, scope: trio.CancelScope) -> None:
        """Note that *count* bytes moved, and give the server new time when that is progress."""
        self._count += count
        if self._count >= _QUANTUM:
            self._count = 0
            self._waited = 0.0
            self._began = trio.current_time()
            scope.deadline = self._began + self.patience

    def restart(self) -> None:
        """Give the server new time: the other half of an exchange begins."""
        self._waited = 0.0
        self._count = 0


class Response:
    """An answer whose body is still on its way."""

    def __init__(
        self, url: Url, status: int, headers: dict[str, str], body: Body, pace: Pace
    ) -> None:
        self.url = url
        self.status = status
        self.headers = headers
        """Names in lower case; several of one name are joined with commas."""
        self._body = body
        self._pace = pace

    @property
    def length(self) -> int | None:
        """Bytes of the body, None where only its end will tell."""
        return self._body.length

    @property
    def is_over(self) -> bool:
        """Say whether the body came to its end, and the connection can be used again."""
        return self._body.is_over

    def slowed(self, bucket: Bucket) -> None:
        """Receive the body no faster than *bucket* allows."""
        self._body = Slowed(self._body, bucket)

    async def fill(self, into: memoryview, arrived: Arrived) -> int:
        """Receive until *into* is full or the body ends; return how many bytes there were.

        Raises Unreachable when the connection breaks, or when the server makes no progress.
        """
        count = 0
        try:
            with self._pace.wait() as scope:
                while count < len(into):
                    more = await self._body.receive_into(into[count:])
                    if not more:
                        break
                    count += more
                    arrived(count)
                    self._pace.moved(more, scope)
                self._pace.waited()
                return count
        except (OSError, FramingError) as exc:
            raise failure(self.url, exc) from exc
        raise stalled(self.url, self._pace)

    async def receive_into(self, into: memoryview) -> int:
        """Receive at least one byte into *into*; return how many, 0 at the body's end."""
        try:
            with self._pace.wait() as scope:
                count = await self._body.receive_into(into)
                self._pace.waited()
                self._pace.moved(count, scope)
                return count
        except (OSError, FramingError) as exc:
            raise failure(self.url, exc) from exc
        raise stalled(self.url, self._pace)

    async def read(self, limit: int) -> bytes:
        """Return the whole body; raises Corrupt when it is longer than *limit*."""
        if self.length is not None and self.length > limit:
            raise Corrupt(f"{self.url}: {self.length} bytes where {limit} are the most")
        data = bytearray(min(self.length if self.length is not None else _DRAIN, limit) + 1)
        count = 0
        while count <= limit:
            with memoryview(data) as view:
                more = await self.fill(view[count:], ignore)
            count += more
            if count < len(data):
                return bytes(memoryview(data)[:count])
            data.extend(bytes(min(len(data), limit + 1 - count)))
        raise Corrupt(f"{self.url}: more than the {limit} bytes that are the most")

    async def drain(self) -> bytes:
        """Return a short body, or the beginning of a long one, as far as it can be had.

        What went wrong with a body that nobody asked for is no news: its status is.
        (docker-registry's 416 announces more than it sends.)
        """
        data = bytearray(_DRAIN)
        count = 0

        def arrived(so_far: int) -> None:
            nonlocal count
            count = so_far

        with suppress(Unreachable):
            await self.fill(memoryview(data), arrived)
        return bytes(memoryview(data)[:count])


def ignore(_count: int) -> None:
    """Be told how many bytes arrived, and do nothing about it."""


def stalled(url: Url, pace: Pace) -> Unreachable:
    """Return the error for a server that let its time pass."""
    return Unreachable(f"{url}: no progress in {pace.patience:g} s")
