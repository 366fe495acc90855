"""Width: how many fetches ahead of readers are worth being under way at once. Pure.

What fills a link is its rate times the wait for an answer. Both are measured: the wait is the
shortest of late between asking and the first chunk, the rate what has landed over a while. Twice
their product is let out, so that both can be found to be larger; the count follows from the size of
a fetch. A fetch more than fills the link only makes the next reader wait behind it.
"""

from __future__ import annotations

from collections import deque

LEAST, MOST = 3, 15
"""Fetches. Below three, the link is idle while one is verified; fifteen of 4 MiB fill 10 Gbit/s
over 40 ms."""

START = 4

_SPELL = 0.1
"""Seconds over which the rate is taken."""

_SPELLS = 8
"""Spells of which the quickest counts: a reader that pauses makes no link slower."""

_WAITS = 32


class Width:
    """The number for one image's sources."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._waits: deque[float] = deque(maxlen=_WAITS)
        self._rates: deque[float] = deque(maxlen=_SPELLS)
        self._since = 0.0
        self._landed = 0
        self.now = START
        """Fetches that may be under way."""

    def answered(self, wait: float) -> None:
        """Note that a fetch's first chunk came *wait* seconds after it was asked for."""
        self._waits.append(wait)

    def landed(self, size: int, now: float) -> None:
        """Note that *size* bytes came by *now*."""
        self._landed += size
        spell = now - self._since
        if spell < _SPELL:
            return
        if spell < _SPELLS * _SPELL:  # else there was a rest between
            self._rates.append(self._landed / spell)
        self._since, self._landed = now, 0
        if self._rates and self._waits:
            needed = 2 * max(self._rates) * min(self._waits)
            self.now = min(MOST, max(LEAST, 1 + -(-int(needed) // self._batch_size)))
