"""Doubles: what the kernel caches of cache files and again of the files made of them.

What a mount's reader got is in the page cache as part of the file it read. The cache file's own
pages would be a second copy of it, so they are let go of, a slice of the file at a time: soon after
they were read, and once more when what was fresh will have been written to the disk.

Tasks: ``run`` is one; ``note`` is called from the event loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import trio

from .cachefile import CacheFile

SLICE_BITS = 25
"""Slices of 32 MiB: letting go of one takes about 2 ms."""

SOON = 1.0
"""Seconds that pages are kept: a reader in the middle of a slice reads on."""

LATER = 45.0
"""Seconds after which the kernel has written back what was new."""

MANY = 8
"""Slices' worth of bytes that may be doubled at once; a faster reader has them let go of before
their time. Bytes are counted: small files read here and there lie in many slices and take little,
and to go through those slices for each of them costs more than the reads [100 us a file]."""

_Slice = tuple[CacheFile, int]


class Doubles:
    """What was read from cache files a moment ago."""

    def __init__(self) -> None:
        self._recent: dict[_Slice, None] = {}
        """In the order of their first reads."""
        self._later: dict[_Slice, float] = {}
        """When to let go of a slice once more."""
        self._size = 0
        """Bytes read since slices were let go of."""
        self._some, self._many = trio.Event(), trio.Event()

    def note(self, file: CacheFile, start: int, stop: int) -> None:
        """Take note that bytes of *file* are on their way to a reader."""
        for number in range(start >> SLICE_BITS, (stop - 1 >> SLICE_BITS) + 1):
            self._recent[file, number] = None
        self._some.set()
        self._size += stop - start
        if self._size > MANY << SLICE_BITS:
            self._many.set()

    async def run(self) -> None:
        """Let go of doubled pages until cancelled."""
        while True:
            with trio.move_on_at(min(self._later.values(), default=math.inf)):
                await self._some.wait()
                with trio.move_on_after(SOON):
                    await self._many.wait()
            recent, again = self._due(trio.current_time())
            if recent or again:
                fresh = await trio.to_thread.run_sync(_let_go, recent, again)
                for key in fresh:
                    self._later.setdefault(key, trio.current_time() + LATER)

    def _due(self, now: float) -> tuple[list[_Slice], list[_Slice]]:
        """Return what to let go of at *now* for the first time, and once more.

        What is being read goes on being recent.
        """
        kept = MANY // 2 if self._many.is_set() else 0
        due = list(self._recent)[: len(self._recent) - kept]
        again = [key for key, when in self._later.items() if when <= now]
        for key in due:
            del self._recent[key]
            self._later.setdefault(key, now + LATER)
        for key in again:
            del self._later[key]
        self._size = 0
        self._many = trio.Event()
        if not self._recent:
            self._some = trio.Event()
        return due, again


def _let_go(recent: Iterable[_Slice], again: Iterable[_Slice]) -> list[_Slice]:
    """Let go of slices; return which are to be let go of once more.

    Fresh ones are left alone the first time: to have them written costs a download a tenth of its
    processor time, and the kernel will do it in half a minute by itself.
    """
    for file, number in recent:
        if not file.is_fresh(*_range(number)):
            file.let_go(*_range(number))
    left = []
    for file, number in again:
        if file.is_fresh(*_range(number)):
            left.append((file, number))
        file.let_go(*_range(number))
    return left


def _range(number: int) -> tuple[int, int]:
    """Return where a slice starts and stops."""
    return number << SLICE_BITS, (number + 1) << SLICE_BITS
