"""The right to take a piece from the source: who has it, until when, and how many at once.

A grant is open from the moment it is given until its piece is held or returned, its holder or its
source is lost, or it shows no life for as long as it lasts. Each source (a seed, or None for the
origin) has a window of grants that may be open at once, and the window follows the rule of TCP
Vegas: the part of a grant's time that the fastest one did without was spent in the source's queue.
As long as fewer than two grants stand there the window grows, when more than four do it shrinks. On
a saturated link that is 4 to 5, which simulation found best; on a long one it is as many as fill
it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sortedcontainers import SortedList

from p2p import runs
from p2p.least import Least

from .mean import Mean

WINDOW_FIRST, WINDOW_LEAST, WINDOW_MOST = 8, 6, 128
ROAD_FIRST = 32
"""The same between sites at first: sessions are still to be had, and the ways are long."""
QUEUED_LEAST, QUEUED_MOST = 3.0, 6.0

LASTS_FIRST, LASTS_LEAST, LASTS_MOST = 5.0, 1.0, 30.0
"""Seconds."""


@dataclass(slots=True, eq=False)
class Grant:
    """A host's right to one piece."""

    piece: int
    holder: bytes
    source: bytes | None
    since: float
    until: float
    lasts: float


@dataclass(slots=True)
class Window:
    """How many grants of one source may be open at once."""

    size: float = WINDOW_FIRST
    used: int = 0
    fastest: Least = field(default_factory=Least)
    """Seconds."""

    @property
    def room(self) -> bool:
        """Whether another may be given."""
        return self.used < int(self.size)

    def learn(self, seconds: float, now: float) -> None:
        """Adapt to a grant that took *seconds*, with *used* open at its end, itself included."""
        self.fastest.learn(seconds, now)
        queued = self.used * (1 - self.fastest.value / max(seconds, 1e-9))
        if queued < QUEUED_LEAST and self.used >= int(self.size):
            self.size = min(WINDOW_MOST, self.size + 1 / self.size)
        elif queued > QUEUED_MOST:
            self.size = max(WINDOW_LEAST, self.size - 1 / self.size)


@dataclass(slots=True)
class Grants:
    """The open grants of one task, or of one site of it."""

    open: dict[int, Grant] = field(default_factory=dict)
    bits: int = 0
    """The pieces of them."""
    by_holder: dict[bytes, int] = field(default_factory=dict)
    """Per host, the pieces of its open grants."""
    windows: dict[bytes | None, Window] = field(default_factory=dict)
    _ends: SortedList = field(default_factory=SortedList)
    _tries: dict[int, int] = field(default_factory=dict)
    _took: Mean = field(default_factory=Mean)

    def window(self, source: bytes | None) -> Window:
        """Return the window of a source."""
        found = self.windows.get(source)
        if found is None:
            found = self.windows[source] = Window()
        return found

    def of(self, holder: bytes) -> int:
        """Return the pieces that a host has grants for."""
        return self.by_holder.get(holder, 0)

    def lasts(self, piece: int) -> float:
        """Return for how long a grant of *piece* may show no life; longer after each failure."""
        usual = self._took.lasts(LASTS_FIRST, LASTS_LEAST, LASTS_MOST)
        return float(min(LASTS_MOST, usual * 2 ** self._tries.get(piece, 0)))

    def give(self, piece: int, holder: bytes, source: bytes | None, now: float) -> Grant:
        """Open a grant of a piece that has none."""
        lasts = self.lasts(piece)
        grant = self.open[piece] = Grant(piece, holder, source, now, now + lasts, lasts)
        self.bits |= 1 << piece
        self.by_holder[holder] = self.of(holder) | 1 << piece
        self.window(source).used += 1
        self._ends.add((grant.until, piece))
        return grant

    def held(self, holder: bytes, bits: int, now: float) -> int:
        """Close a host's grants of *bits*; its others have shown life. Return what closed."""
        mine = self.of(holder)
        if not mine & bits:
            return 0
        for piece in runs.numbers(mine & bits):
            grant = self.open[piece]
            self._took.learn(now - grant.since)
            self.window(grant.source).learn(now - grant.since, now)
            self._tries.pop(piece, None)
            self._close(grant)
        for piece in runs.numbers(mine & ~bits):
            grant = self.open[piece]
            self._ends.remove((grant.until, piece))
            grant.until = now + grant.lasts
            self._ends.add((grant.until, piece))
        return mine & bits

    def returned(self, holder: bytes, bits: int) -> list[Grant]:
        """Close a host's grants of *bits*, which came to nothing."""
        return self._fail(self.open[each] for each in list(runs.numbers(self.of(holder) & bits)))

    def lost(self, host: bytes) -> list[Grant]:
        """Close every grant that a lost host had, or that had it as its source."""
        return self._fail(
            [each for each in self.open.values() if host in (each.holder, each.source)]
        )

    def expired(self, now: float) -> list[Grant]:
        """Close the grants that have shown no life for too long."""
        ended = []
        for until, piece in self._ends:
            if until > now:
                break
            ended.append(self.open[piece])
        for grant in ended:
            self._tries[grant.piece] = min(8, self._tries.get(grant.piece, 0) + 1)
        return self._fail(ended)

    def due(self) -> float:
        """Return when the next one ends."""
        return float(self._ends[0][0]) if self._ends else float("inf")

    def _fail(self, grants: Iterable[Grant]) -> list[Grant]:
        grants = list(grants)
        for grant in grants:
            self._close(grant)
        return grants

    def _close(self, grant: Grant) -> None:
        del self.open[grant.piece]
        self.bits &= ~(1 << grant.piece)
        left = self.by_holder[grant.holder] & ~(1 << grant.piece)
        if left:
            self.by_holder[grant.holder] = left
        else:
            del self.by_holder[grant.holder]
        self.window(grant.source).used -= 1
        self._ends.remove((grant.until, grant.piece))


@dataclass(slots=True)
class SiteGrants(Grants):
    """Grants with one window for all sources: what they share is the way to the site."""

    road: Window = field(default_factory=lambda: Window(size=ROAD_FIRST))

    def window(self, source: bytes | None) -> Window:
        """Return the window."""
        return self.road
