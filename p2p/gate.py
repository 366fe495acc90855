"""Gate: where connections are accepted, secured, greeted and counted.

Tasks: one per connection, in the nursery of ``serve``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable

import trio

from .errors import Gone, P2pError
from .line import Line, accepted
from .messages import Hello
from .security import Remote, Security
from .session import Session, greeted

logger = logging.getLogger(__name__)

MOST, MOST_PER_HOST = 4096, 8
"""Sessions at once, in all and of one host; more are hung up on."""

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
        self.refused = 0

    async def admit(self, stream: trio.abc.Stream) -> None:
        """Serve one connection; never raises what the other side can cause."""
        if self._connections >= MOST:
            self.refused += 1
            await trio.aclose_forcefully(stream)
            return
        self._connections += 1
        try:
            async with accepted(stream, self._security) as (line, remote):
                await self._greet(line, remote)
        except P2pError as exc:
            logger.info("connection refused reason=%s", exc)
        except OSError as exc:
            logger.debug("connection broke reason=%s", exc)
        finally:
            self._connections -= 1

    async def _greet(self, line: Line, remote: Remote) -> None:
        session = await greeted(line, remote, self._hello, dialled=False)
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
