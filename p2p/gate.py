"""Gate: where connections are accepted, secured, greeted and counted.

Tasks: one per connection, in the nursery of ``serve``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

import trio

from .errors import Gone, P2pError
from .line import accepted
from .messages import Hello
from .security import Security
from .session import Session, greeted

logger = logging.getLogger(__name__)

MOST, MOST_PER_HOST = 4096, 8
"""Sessions at once, in all and of one host; more are hung up on."""

MOST_STRANGERS = 512
"""Connections of one address that have not said who they are: so long as that takes seconds, one
machine must not take the places of all others."""

Serve = Callable[[Session], Awaitable[None]]
"""Serves one session until it ends."""


class Gate:
    """Accepts sessions for who serves them."""

    def __init__(self, security: Security, hello: Hello, serve: Serve) -> None:
        self._security = security
        self._hello = hello
        self._serve = serve
        self._connections = 0
        self._by_host: Counter[bytes] = Counter()
        self._strangers: Counter[str] = Counter()
        self.refused = 0

    async def admit(self, stream: trio.abc.Stream) -> None:
        """Serve one connection; never raises what the other side can cause."""
        address = _address(stream)
        if self._connections >= MOST or self._strangers[address] >= MOST_STRANGERS:
            self.refused += 1
            await trio.aclose_forcefully(stream)
            return
        self._connections += 1
        try:
            async with AsyncExitStack() as stack:
                with self._stranger(address):
                    line, remote = await stack.enter_async_context(accepted(stream, self._security))
                    session = await greeted(line, remote, self._hello, dialled=False)
                await self._enter(session)
        except P2pError as exc:
            logger.info("connection refused address=%s reason=%s", address, exc)
        except OSError as exc:
            logger.debug("connection broke address=%s reason=%s", address, exc)
        finally:
            self._connections -= 1

    @contextmanager
    def _stranger(self, address: str) -> Iterator[None]:
        """Count a connection of *address* until it is known who it is."""
        self._strangers[address] += 1
        try:
            yield
        finally:
            self._strangers[address] -= 1
            if not self._strangers[address]:
                del self._strangers[address]

    async def _enter(self, session: Session) -> None:
        host = session.hello.host
        if self._by_host[host] >= MOST_PER_HOST:
            self.refused += 1
            raise Gone(f"more than {MOST_PER_HOST} sessions of one host")
        self._by_host[host] += 1
        try:
            await self._serve(session)
        finally:
            self._by_host[host] -= 1
            if not self._by_host[host]:
                del self._by_host[host]


def _address(stream: trio.abc.Stream) -> str:
    """Return the address that a connection comes from, without its port."""
    if not isinstance(stream, trio.SocketStream):
        return ""
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:  # it has gone already
        return ""
