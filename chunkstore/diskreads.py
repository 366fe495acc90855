"""Disk reads: large pieces of one image's cache files, read while nobody waits in the event loop.

Most go through a queue of the kernel's; what is no single piece of a file, or finds no room there,
is read by threads.

Tasks: of the event loop; ``run`` is one. A read that nobody waits for any more goes on, and keeps
its lease and its memory to its end.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from .cachefile import DirectRead, buffers
from .chunk import Extent
from .digest import Buffer
from .diskqueue import DiskQueue
from .lease import Lease
from .views import Views

THREADS = 8
"""Reads by threads that are under way at once."""


class _Flight:
    """A read that is under way."""

    def __init__(self, lease: Lease, read: DirectRead) -> None:
        self._lease = lease
        self._read = read
        self.wanted = True
        self.data: Buffer | None = None
        self.done = trio.Event()

    def ended(self, result: int) -> None:
        self.data = self._read.ended(result)
        self._lease.release()
        if not self.wanted:
            buffers.give(self.data)
        self.done.set()


class DiskReads:
    """What is read from the disk for one image."""

    def __init__(self, views: Views, queue: DiskQueue | None = None) -> None:
        self._views = views
        self._queue = queue or DiskQueue()
        self._threads = trio.CapacityLimiter(THREADS)

    async def read(self, extents: Sequence[Extent]) -> Buffer | None:
        """Return a copy of what is here and not in memory, None of anything else.

        It is one of `cachefile.buffers` where it is large, the caller's to give back.
        """
        flight = self._begin(extents)
        if flight is not None:
            await _landing(flight)
            if flight.data is not None:
                return flight.data
        return await trio.to_thread.run_sync(self._views.from_disk, extents, limiter=self._threads)

    async def run(self) -> None:
        """Let the queue work until cancelled."""
        await self._queue.run()

    def _begin(self, extents: Sequence[Extent]) -> _Flight | None:
        found = self._views.direct_read(extents)
        if found is None:
            return None
        flight = _Flight(*found)
        _, read = found
        if self._queue.read(read.fd, read.into, read.start, flight.ended):
            return flight
        flight.wanted = False
        flight.ended(-1)
        return None


async def _landing(flight: _Flight) -> None:
    try:
        await flight.done.wait()
    except trio.Cancelled:
        flight.wanted = False
        if flight.done.is_set():
            buffers.give(flight.data)
        raise
