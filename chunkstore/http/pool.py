"""Pool: kept connections, bounded per server.

Tasks: a slot is taken with an await, everything else happens between awaits, so that the lists are
never seen half changed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from .wire import Wire

Site = tuple[str, str, int]
"""Scheme, host and port."""

_KEPT_FOR = 60.0
"""Seconds; servers hang up after 60 to 75 of them (nginx 75, docker-registry behind it 60)."""


@dataclass(slots=True)
class _Server:
    slots: trio.Semaphore
    users: int = 0
    """Tasks that hold or wait for a slot: while there are any, the entry stays."""
    idle: list[tuple[float, Wire]] = field(default_factory=list)
    """When each was last used; the latest last."""


class Pool:
    """Connections that wait for their next request, at most *limit* in use and kept per server."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._servers: dict[Site, _Server] = {}

    @asynccontextmanager
    async def slot(self, site: Site) -> AsyncIterator[None]:
        """Hold one of the server's connections, waiting for it while all are in use."""
        server = self._servers.setdefault(site, _Server(trio.Semaphore(self._limit)))
        server.users += 1
        try:
            # Taking a free place at once, not by way of the scheduler, saves a tenth of a request.
            try:
                server.slots.acquire_nowait()
            except trio.WouldBlock:
                await server.slots.acquire()
            try:
                yield
            finally:
                server.slots.release()
        finally:
            server.users -= 1
            self._forget_unused(trio.current_time())

    def take(self, site: Site) -> Wire | None:
        """Return a connection that still seems alive, or None."""
        oldest = trio.current_time() - _KEPT_FOR
        idle = self._servers[site].idle
        while idle:
            since, wire = idle.pop()
            if since > oldest and wire.is_quiet():
                return wire
            wire.close()
        return None

    def keep(self, site: Site, wire: Wire) -> None:
        """Keep a connection whose exchange is complete."""
        self._servers[site].idle.append((trio.current_time(), wire))

    def _forget_unused(self, now: float) -> None:
        for site, server in list(self._servers.items()):
            while server.idle and server.idle[0][0] <= now - _KEPT_FOR:
                server.idle.pop(0)[1].close()
            if not server.users and not server.idle:
                del self._servers[site]

    def close(self) -> None:
        """Hang up what is kept; what is in use ends with its exchange."""
        for server in self._servers.values():
            while server.idle:
                server.idle.pop()[1].close()

    @property
    def idle(self) -> int:
        """How many connections are kept."""
        return sum(len(server.idle) for server in self._servers.values())
