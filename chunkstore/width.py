"""Width: how large fetches ahead of readers are, and how many are worth being under way. Pure.

What fills a link is its rate times the wait for an answer. Both are measured: the wait is about
the shortest between asking and the first chunk, the rate what has landed over a while. A fetch
is as large as their product, or as what comes in a moment, within limits; a few times the product
is let out, because fetches that began together end together, and all would wait at the same time.
More than that only makes the next reader wait behind it.
"""

from __future__ import annotations

import math
from collections import deque

LEAST, MOST = 3, 8
"""Fetches. Below three, the link is idle while one is verified; eight of 8 MiB fill 10 Gbit/s over
50 ms."""

SMALLEST, LARGEST = 1 << 20, 8 << 20
"""Stored bytes of a fetch. A request costs 0.5 ms of the processor: asking for 8 MiB at a time took
a tenth less of it per GiB than 4 MiB, from loopback HTTP."""

_BRIEF = 0.01
"""Seconds that a fetch may take whatever the wait for its answer: a request costs as much as half a
MiB on a quick link, and a reader that comes meanwhile does not notice 10 ms."""

START, START_SIZE = 4, 4 << 20
"""Fetches, and bytes of one, before the link is known: it may be a slow one."""

_GAIN = 4
"""Times what fills the link. With 2, 10 Gbit/s at 10 ms stood idle for a quarter of the time."""

_SPELL = 0.1
"""Seconds over which the rate is taken."""

_SPELLS = 8
"""Spells of which the quickest counts: a reader that pauses makes no link slower."""

_FORGETTING = 1.001
"""By how much the shortest wait grows with each other one. It is forgotten slowly: on a full link
all waits are long, and to believe them would fill it even more."""


class Width:
    """The numbers for one image's sources."""

    def __init__(self) -> None:
        self._wait = math.inf
        self._rates: deque[float] = deque(maxlen=_SPELLS)
        self._since = 0.0
        self._landed = 0
        self._full = True
        """Whether more was wanted all the time of this spell."""
        self.now = START
        """Fetches that may be under way."""
        self.size = START_SIZE
        """Stored bytes that a fetch asks for at most."""

    def answered(self, wait: float) -> None:
        """Note that a fetch's first chunk came *wait* seconds after it was asked for."""
        self._wait = min(wait, self._wait * _FORGETTING)

    def landed(self, size: int, now: float, *, full: bool = True) -> None:
        """Note that *size* bytes came by *now*, while more was wanted if *full*.

        A reader who asks for one chunk after the other says little of the link.
        """
        self._landed += size
        self._full = self._full and full
        spell = now - self._since
        if spell < _SPELL:
            return
        if spell < _SPELLS * _SPELL:  # else there was a rest between
            rate = self._landed / spell
            if self._full or rate > max(self._rates, default=math.inf):
                self._rates.append(rate)
        self._since, self._landed, self._full = now, 0, True
        if self._rates and self._wait < math.inf:
            fills = max(self._rates) * self._wait
            self.size = int(min(LARGEST, max(SMALLEST, fills, max(self._rates) * _BRIEF)))
            self.now = min(MOST, max(LEAST, 1 + round(_GAIN * fills / self.size)))
