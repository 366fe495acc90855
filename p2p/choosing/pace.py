"""How quick a parent answers: latency, rate, when an answer is late, how many to have open."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2p.least import Least

KEPT = 32
"""Latencies kept for the 95th percentile."""
FIRST = 0.05
"""Seconds assumed where nothing is known."""
LATE_LEAST = 0.01
"""Seconds: below that an answer is not worth a second request."""
OPEN_LEAST, OPEN_MOST = 2, 32
"""Requests open per parent."""


@dataclass(slots=True)
class Pace:
    """Measurements of one parent."""

    mean: float = 0.0
    """Seconds from request to answer, smoothed; 0: nothing is known."""
    quickest: Least = field(default_factory=Least)
    """Seconds."""
    rate: float = 0.0
    """Bytes per second while something was open, smoothed."""
    under_way: float = 0.0
    """Bytes that are on their way where nothing waits: rate times the quickest answer."""
    _last: float = 0.0
    """When the last answer came."""
    _kept: list[float] = field(default_factory=list)
    _place: int = 0
    _p95: float = 0.0

    def learn(self, sent: float, size: int, now: float) -> None:
        """Learn from an answer of *size* bytes to a request of the time *sent*."""
        latency = now - sent
        spent = max(1e-6, now - max(sent, self._last))
        self._last = now
        self.quickest.learn(latency, now)
        if not self._kept:
            self.mean = latency
            self.rate = size / spent
        else:
            self.mean += (latency - self.mean) * 0.125
            # smoothed as time per byte: a burst that waited in a buffer is no rate
            self.rate = 1 / (0.875 / self.rate + 0.125 * spent / size) if size else self.rate
        self.under_way = self.rate * self.quickest.value
        if len(self._kept) < KEPT:
            self._kept.append(latency)
        else:
            self._kept[self._place % KEPT] = latency
        self._place += 1
        if self._place & 7 == 1:
            self._p95 = sorted(self._kept)[len(self._kept) * 95 // 100]
        elif latency > self._p95 and len(self._kept) < 8:
            self._p95 = latency

    @property
    def late(self) -> float:
        """Return the seconds after which an answer is late: the 95th percentile; 0: unknown."""
        return max(LATE_LEAST, self._p95) if self._kept else 0.0

    def window(self, size: int) -> int:
        """Return how many requests for *size* bytes to have open: one more than are under way."""
        return max(OPEN_LEAST, min(OPEN_MOST, int(self.under_way / size + 1.5)))
