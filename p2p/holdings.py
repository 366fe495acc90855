"""Holdings: what this host's cache has of which tasks, and who wants to know.

The ready maps say it. What this process puts there is noted at once; what others put there, and
what is evicted, is found by comparing state bytes, at the speed of memcmp.

Tasks: of the event loop. Files are opened and closed in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from chunkstore import Blob, Buffer, Chunk
from chunkstore.blobcache import BlobCache
from chunkstore.cachefile import CacheFile
from chunkstore.readymap import READY
from chunkstore.shelf import BlobShelf

from . import runs
from .errors import Gone

TICK = 1.0
"""Seconds between looks at the ready maps."""

Listener = Callable[[int, int], None]
"""Told what was added and what was dropped, as bitmaps."""

_FLAGS = bytes(ord("1") if value == READY else ord("0") for value in range(256))


class Holding:
    """One task's pieces in the cache."""

    def __init__(self, task: bytes, file: CacheFile, shelf: BlobShelf | None = None) -> None:
        self.task = task
        self.file = file
        self._shelf = shelf
        """Of a seed, which also keeps what contradicts the shared file."""
        self._states = b""
        self._listeners: list[Listener] = []
        self.bits = 0
        """Which pieces are here."""
        self.is_gone = False
        """Its files are not open any more."""
        self.refresh()

    @property
    def is_own(self) -> bool:
        """Whether its file is open for it, and is to be closed."""
        return self._shelf is None

    def chunk(self, piece: int) -> Chunk | None:
        """Return a piece that was asked for without a digest; None: those are not told here."""
        return None

    def find(self, chunk: Chunk) -> CacheFile | None:
        """Return the file in which *chunk* is ready, digest, place and size."""
        if self.is_gone:
            return None
        if self._shelf is not None:
            return self._shelf.find(chunk)
        return self.file if self.file.holds(chunk) else None

    def note(self, index: int) -> None:
        """Tell of a piece that was put just now."""
        bit = 1 << index
        if not self.bits & bit:
            self.bits |= bit
            self._tell(bit, 0)

    def refresh(self) -> None:
        """Look at the ready map again, and tell what has changed."""
        states = b"" if self.is_gone else self.file.map.states.tobytes()
        if states == self._states:
            return
        self._states = states
        bits = int(states.translate(_FLAGS)[::-1] or b"0", 2)
        before, self.bits = self.bits, bits
        if bits != before:
            self._tell(bits & ~before, before & ~bits)

    def listen(self, listener: Listener) -> None:
        """Have *listener* told of changes until ``unlisten``."""
        self._listeners.append(listener)

    def unlisten(self, listener: Listener) -> None:
        """Tell *listener* no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def withdraw(self) -> None:
        """Have nothing any more: the files are about to be closed."""
        dropped, self.bits, self.is_gone = self.bits, 0, True
        self._tell(0, dropped)

    def _tell(self, added: int, dropped: int) -> None:
        for listener in list(self._listeners):
            listener(added, dropped)


class Holdings:
    """The tasks that this host has a file for."""

    def __init__(self, cache: BlobCache) -> None:
        self._cache = cache
        self._by_task: dict[bytes, Holding] = {}
        self._opening = trio.Lock()
        self._threads = trio.CapacityLimiter(1)
        self.opened: list[Callable[[Holding], None]] = []
        """Told of every task that is new here."""

    def find(self, task: bytes) -> Holding | None:
        """Return the task's holding, if there is one."""
        return self._by_task.get(task)

    def __iter__(self) -> Iterator[Holding]:
        return iter(list(self._by_task.values()))

    async def open(self, task: bytes, blob: Blob) -> Holding:
        """Open the file of *blob*, whose task is *task*; raises OSError."""
        return await self._add(task, lambda: self._cache.open(blob))

    async def open_place(self, task: bytes, name: str) -> Holding | None:
        """Open what lies in the cache under a blob's name; None where it is damaged."""
        place = self._cache.place(name)
        file = await trio.to_thread.run_sync(self._cache.reopen, place, limiter=self._threads)
        return None if file is None else await self._add(task, lambda: file)

    def lend(self, task: bytes, shelf: BlobShelf) -> Holding:
        """Add a task whose files somebody else keeps open."""
        holding = Holding(task, shelf.files[0], shelf)
        self.add(holding)
        return holding

    def add(self, holding: Holding) -> None:
        """Add a task that is new here."""
        self._by_task[holding.task] = holding
        self._tell(holding)

    def forget(self, task: bytes) -> None:
        """Take back what was lent; children hear that it is gone."""
        holding = self._by_task.pop(task, None)
        if holding is not None:
            holding.withdraw()

    async def _add(self, task: bytes, opened: Callable[[], CacheFile]) -> Holding:
        async with self._opening:
            known = self._by_task.get(task)
            file = await trio.to_thread.run_sync(opened, limiter=self._threads)
            if known is not None:
                await self._close(file)
                return known
            holding = self._by_task[task] = Holding(task, file)
        self._tell(holding)
        return holding

    def _tell(self, holding: Holding) -> None:
        for listener in self.opened:
            listener(holding)

    async def run(self) -> None:
        """Look for what other processes change, until cancelled; then the files are closed."""
        try:
            while True:
                await trio.sleep(TICK)
                for holding in self:
                    holding.refresh()
        finally:
            with trio.CancelScope(shield=True):
                for holding in self:
                    if holding.is_own:
                        await self._close(holding.file)
                self._by_task.clear()

    async def _close(self, file: CacheFile) -> None:
        await trio.to_thread.run_sync(self._cache.close_file, file, limiter=self._threads)


class Upload:
    """A chunk on its way out of a cache file: a ``Passage``.

    The lease is shared for each step, and the chunk looked for again, so that a slow child holds up
    no evictor. What is punched while it lies in the socket does not match the digest any more at
    the other side, which complains and hears that it is gone.
    """

    def __init__(self, file: CacheFile, chunk: Chunk) -> None:
        self._file = file
        self._chunk = chunk
        self.size = chunk.size

    @property
    def in_memory(self) -> bool:
        """Whether sending waits for no disk."""
        return self._file.in_memory(self._chunk.offset, self._chunk.stop)

    def page_in(self) -> None:
        """Read the bytes from the disk; in a thread."""
        if self._file.lease.share():
            try:
                self._file.piece(self._chunk.offset, self._chunk.stop)
            finally:
                self._file.lease.release()

    def pass_on(self, out: int, done: int, size: int) -> int:
        """Send what the socket *out* takes now."""
        with self._held() as held:
            if not held:
                return 0
            count = self._file.pass_on(out, self._chunk.offset + done, size)
            if not count:
                raise Gone("the cache file is cut")
            return count

    def copy(self, done: int, size: int) -> Buffer:
        """Return bytes of the chunk."""
        with self._held() as held:
            if not held:
                return b""
            into = bytearray(size)
            if not self._file.read(self._chunk.offset + done, memoryview(into)):
                raise Gone("the cache file cannot be read")
            return into

    @contextmanager
    def _held(self) -> Iterator[bool]:
        if not self._file.lease.share():
            yield False
            return
        try:
            if not self._file.holds(self._chunk):
                raise Gone("the chunk was evicted while it was sent")
            yield True
        finally:
            self._file.lease.release()


def as_runs(bits: int) -> list[int]:
    """Return *bits* as they go over the wire."""
    return runs.encode(bits)
