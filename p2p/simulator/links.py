"""Links: a fair share of an uplink for each upload, first come on whatever comes after it.

An uplink serves its uploads with about equal shares: each ends when the *service* that all get
alike has grown by its size, so one number and a heap stand for any count of uploads. The downlink
and the links of sites on the way are passed while bytes still come in (cut-through): they delay the
end of a piece only where they are the narrower place.
"""

from __future__ import annotations

from heapq import heappop, heappush
from random import Random

from .clock import Clock

UNFAIR = 0.2
"""How far the shares of connections differ: equal ones would march in step for ever."""


class Pipe:
    """A link that is passed in the order of coming."""

    __slots__ = ("free", "rate")

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.free = 0.0

    def passed(self, began: float, arrives: float, size: int) -> float:
        """Return when *size* bytes that come from *began* to *arrives* are through."""
        self.free = max(self.free, began) + size / self.rate
        return max(self.free, arrives)


class Upload:
    """A piece on its way."""

    __slots__ = ("began", "gone", "number", "piece", "priority", "size", "to")

    def __init__(self, to: object, number: int, piece: int, size: int, priority: int) -> None:
        self.to = to
        self.number = number
        self.piece = piece
        self.size = size
        self.priority = priority
        self.began = 0.0
        self.gone = False
        """Taken back before it was served."""


class Uplink:
    """A link whose uploads share it."""

    __slots__ = ("_clock", "_due", "_heap", "_made", "_random", "_served", "_since", "rate", "then")

    def __init__(self, clock: Clock, rate: float, random: Random, then: object) -> None:
        self.rate = rate
        self.then = then
        """Called with each upload that has left."""
        self._clock = clock
        self._random = random
        self._heap: list[tuple[float, int, Upload]] = []
        self._served = 0.0
        """Bytes that each upload has got since the beginning of time."""
        self._since = 0.0
        self._due = float("inf")
        self._made = 0

    def __len__(self) -> int:
        return len(self._heap)

    def start(self, upload: Upload) -> None:
        """Serve an upload."""
        now = self._clock.now
        heap = self._heap
        if heap:
            self._served += (now - self._since) * self.rate / len(heap)
        self._since = now
        upload.began = now
        self._made += 1
        share = 1 - UNFAIR + 2 * UNFAIR * self._random.random()
        heappush(heap, (self._served + upload.size * share, self._made, upload))
        self._plan(now)

    def set_rate(self, rate: float) -> None:
        """Make it slower or faster from now on; 0 is a standstill."""
        now = self._clock.now
        if self._heap:
            self._served += (now - self._since) * self.rate / len(self._heap)
        self._since = now
        self.rate = rate
        self._due = float("inf")
        if rate and self._heap:
            self._plan(now)

    def _plan(self, now: float) -> None:
        """Look when the first will be through: later than thought is found out then."""
        if not self.rate:
            return
        due = now + (self._heap[0][0] - self._served) * len(self._heap) / self.rate
        if due < self._due:
            self._due = due
            self._clock.at(due, self._look, due)

    def _look(self, due: float) -> None:
        if due != self._due:
            return
        self._due = float("inf")
        now, heap = self._clock.now, self._heap
        if not self.rate or not heap:
            return
        self._served += (now - self._since) * self.rate / len(heap)
        self._since = now
        while heap and heap[0][0] <= self._served + 1e-3:
            _, _, upload = heappop(heap)
            self.then(upload)  # type: ignore[operator]
        if heap:
            self._plan(now)
