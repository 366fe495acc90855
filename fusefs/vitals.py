"""Vitals: what a daemon tells its supervisor by living: one shared page, written without a call.

The supervisor makes the page once; each daemon inherits it and writes, the supervisor reads.
"""

from __future__ import annotations

import mmap

_ANSWERED, _BEAT = 0, 1


class Vitals:
    """A daemon's counters in shared memory."""

    __slots__ = ("_page", "words")

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self.words = memoryview(self._page).cast("Q")
        """Its words; ``words[0] += 1`` is what answering a request costs."""

    @property
    def answered(self) -> int:
        """Requests answered by the daemon that lives now."""
        return self.words[_ANSWERED]

    @property
    def beat(self) -> float:
        """When the event loop last ran, by the monotonic clock in seconds."""
        return self.words[_BEAT] / 1e9

    def live(self, now: float) -> None:
        """Say that the event loop runs at *now*."""
        self.words[_BEAT] = int(now * 1e9)

    def begin(self, now: float) -> None:
        """Forget the daemon before this one."""
        self.words[_ANSWERED] = 0
        self.live(now)
