"""Doubles: what the kernel caches of cache files and again of the files made of them.

What a mount's reader got is in the page cache as part of the file it read. The cache file's own
pages would be a second copy of it, so they are let go of, a slice of the file at a time: soon after
they were read, and once more when what was fresh will have been written to the disk. What the
kernel has read ahead in a slice, and nobody has got yet, stays: to drop that had small files in
order read from the disk three times and a half.

Tasks: ``run`` is one; ``note`` is called from the event loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from mmap import PAGESIZE

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

_Span = tuple[int, int]
"""The bytes from the first to the last that were read of a slice."""

_Part = tuple[_Slice, _Span]


class Doubles:
    """What was read from cache files a moment ago."""

    def __init__(self) -> None:
        self._recent: dict[_Slice, _Span] = {}
        """In the order of their first reads."""
        self._later: dict[_Slice, tuple[float, _Span]] = {}
        """When to let go of a slice once more."""
        self._size = 0
        """Bytes read since slices were let go of."""
        self._some, self._many = trio.Event(), trio.Event()

    def note(self, file: CacheFile, start: int, stop: int) -> None:
        """Take note that bytes of *file* are on their way to a reader."""
        for number in range(start >> SLICE_BITS, (stop - 1 >> SLICE_BITS) + 1):
            first, last = number << SLICE_BITS, (number + 1) << SLICE_BITS
            span = max(start, first), min(-(-stop // PAGESIZE) * PAGESIZE, last)
            self._recent[file, number] = _around(self._recent.get((file, number)), span)
        self._some.set()
        self._size += stop - start
        if self._size > MANY << SLICE_BITS:
            self._many.set()

    async def run(self) -> None:
        """Let go of doubled pages until cancelled."""
        while True:
            with trio.move_on_at(min((when for when, _ in self._later.values()), default=math.inf)):
                await self._some.wait()
                with trio.move_on_after(SOON):
                    await self._many.wait()
            recent, again = self._due(trio.current_time())
            if recent or again:
                fresh = await trio.to_thread.run_sync(_let_go, recent, again)
                self._once_more(fresh, trio.current_time() + LATER)

    def _once_more(self, parts: Iterable[_Part], when: float) -> None:
        for key, span in parts:
            before, known = self._later.get(key, (when, None))
            self._later[key] = before, _around(known, span)

    def _due(self, now: float) -> tuple[list[_Part], list[_Part]]:
        """Return what to let go of at *now* for the first time, and once more.

        What is being read goes on being recent.
        """
        kept = MANY // 2 if self._many.is_set() else 0
        due = list(self._recent.items())[: len(self._recent) - kept]
        again = [(key, span) for key, (when, span) in self._later.items() if when <= now]
        for key, _ in again:
            del self._later[key]
        for key, _ in due:
            del self._recent[key]
        self._once_more(due, now + LATER)
        self._size = 0
        self._many = trio.Event()
        if not self._recent:
            self._some = trio.Event()
        return due, again


def _let_go(recent: Iterable[_Part], again: Iterable[_Part]) -> list[_Part]:
    """Let go of slices; return which are to be let go of once more.

    Fresh ones are left alone the first time: to have them written costs a download a tenth of its
    processor time, and the kernel will do it in half a minute by itself.
    """
    for (file, _), span in recent:
        if not file.is_fresh(*span):
            file.let_go(*span)
    left = []
    for key, span in again:
        file, _ = key
        if file.is_fresh(*span):
            left.append((key, span))
        file.let_go(*span)
    return left


def _around(one: _Span | None, other: _Span) -> _Span:
    return other if one is None else (min(one[0], other[0]), max(one[1], other[1]))
