"""What a child decided to do now, and its settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2p.messages import Body, Parent

READER, AHEAD, BULK = 0, 1, 2
"""Priorities, as on the wire."""


@dataclass(frozen=True, slots=True)
class Patience:
    """The child's settings: how many and how long."""

    total: int = 5
    """Requests open at once, at first and at least."""
    total_most: int = 64
    slow: float = 0.2
    """Seconds for a piece from which one less is open: what comes beside others comes later, and
    cannot be passed on meanwhile."""
    reader: float = 0.5
    """Seconds without a word of the scheduler before a reader's piece comes from the origin."""
    others: float = 5.0
    alone: float = 2.0
    """Seconds with nothing to ask for after which all is read where no scheduler is there."""
    stands: float = 0.25
    """Seconds without a scheduler after which a deputy takes what falls to it: what was granted
    has come by then."""
    source: float = 15.0
    """Seconds that a source may take for what is read while there is no scheduler: many ask it."""
    gather: float = 1.0
    """Seconds for which HELD is gathered."""
    stall_first: float = 2.0
    """Seconds without an answer that are too many where nothing is known of anybody."""
    stall_least: float = 1.0
    queued: float = 30.0
    """Seconds for which a request may wait at a host that answers others meanwhile."""
    slowest: float = 256 << 10
    """Bytes per second below which a piece that has begun to come counts as stalled."""
    strikes: int = 3
    rest: float = 10.0
    """Seconds for which a host that failed is not asked."""
    withdrawal: float = 2.0
    """Seconds in which a host that did not have a piece must have said so of itself."""
    hollow: int = 4
    """Pieces that it did not have and still claims, after which the scheduler is told."""
    linger: float = 5.0
    """Seconds for which a session is kept that is of no use any more."""
    report: float = 10.0
    need_first: float = 0.25
    need_most: float = 8.0
    starving: float = 0.3
    """Share of the time with too little to ask for after which a parent is given up."""
    quiet: float = 1.0
    """Seconds with nothing open at all after which the scheduler is told what is missing."""
    looked_at: int = 128
    """Pieces asked for ahead that are looked at each time."""

    def opens(self, latency: float) -> int:
        """Return how many requests to have open at least where answers take *latency*."""
        return self.total - (latency > self.slow)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to send."""

    number: int
    host: bytes
    piece: int
    priority: int


@dataclass(slots=True)
class Choice:
    """What to do now."""

    asks: list[Ask] = field(default_factory=list)
    cancels: list[Ask] = field(default_factory=list)
    """There may be an answer all the same; it is to be told like any other."""
    origin: list[int] = field(default_factory=list)
    """Pieces to read from the origin; told back by `fetched` or `unfetched`."""
    complaints: list[tuple[bytes, int]] = field(default_factory=list)
    connect: list[Parent] = field(default_factory=list)
    """Hosts to have a session with and to FOLLOW; told back by `linked` or `unlinked`."""
    approach: list[Parent] = field(default_factory=list)
    """The same quietly: all that they will be asked for, the scheduler tells."""
    leave: list[bytes] = field(default_factory=list)
    """Hosts to UNFOLLOW: nothing is open there."""
    control: list[Body] = field(default_factory=list)
    """Messages to the scheduler."""
    wake: float = float("inf")
