"""Vitals: what a daemon tells its supervisor by living: one shared page, written without a call.

The supervisor makes the page once; each daemon inherits it and writes, the supervisor reads. What a
daemon leaves there for its successors outlives it: a successor must serve the very same image.
"""

from __future__ import annotations

import mmap

_ANSWERED, _BEAT, _SIZE = 0, 1, 2
_WORDS = 64
"""Bytes in front of what is left for successors."""


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

    @property
    def legacy(self) -> bytes:
        """What a daemon left for its successors; empty before the first did."""
        return self._page[_WORDS : _WORDS + self.words[_SIZE]]

    @legacy.setter
    def legacy(self, value: bytes) -> None:
        if len(value) > len(self._page) - _WORDS:
            raise ValueError(f"{len(value)} bytes for the daemons to come")
        # The size last: a daemon may be killed between any two of these.
        self.words[_SIZE] = 0
        self._page[_WORDS : _WORDS + len(value)] = value
        self.words[_SIZE] = len(value)
