"""What a child knows of one host that it takes pieces from."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2p.messages import Handle, Parent, Report

from .pace import Pace


@dataclass(slots=True, eq=False)
class Request:
    """A piece that was asked for."""

    number: int
    link: Link
    piece: int
    priority: int
    sent: float
    late: float = 0.0
    """When a second one may be worth it."""
    stalled: float = 0.0
    """When it counts as one that will not be answered."""
    doubled: bool = False
    """There is a second one, or it is the second."""


@dataclass(slots=True, eq=False)
class Link:
    """A parent, a source of grants, or somebody that a hint named."""

    parent: Parent
    regular: bool = False
    """One of the parents that the scheduler assigned: all of its pieces may be asked for."""
    extra: int = 0
    """Pieces that a hint or a grant allows besides."""
    granted: int = 0
    """Those of them that are to be taken from it as the source."""
    have: int = 0
    ready: bool = False
    """There is a session, and it was told FOLLOW."""
    dialled: float = -1.0
    """When a session was asked for; negative: it was not."""
    quiet: bool = False
    """It was asked to tell nothing of what it has."""
    used: float = 0.0
    """When it was last of use."""
    rests: float = 0.0
    """Until when it is not asked: busy, or it failed."""
    open: dict[int, Request] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)
    strikes: int = 0
    """Requests that stalled since it last answered one."""
    gave: int = 0
    """Pieces since the parents were last judged."""
    served: int = 0
    size: int = 0
    seconds: float = 0.0
    corrupt: int = 0
    timeouts: int = 0
    absent: int = 0
    """Pieces that it did not have and went on claiming."""
    denied: int = 0
    """Pieces that it did not have and has not withdrawn."""
    denied_since: float = 0.0
    reported: float = 0.0
    """When."""

    @property
    def can(self) -> int:
        """The pieces that may be asked for and are there."""
        return self.have if self.regular else self.have & self.extra

    @property
    def serves(self) -> bool:
        """Whether it is a parent, no seed, that there is a session with."""
        return self.regular and self.ready and self.parent.kind != "seed"

    def report(self, handle: Handle, now: float) -> Report | None:
        """Return what it was like since the last report; None: nothing to say."""
        if not (self.served or self.corrupt or self.timeouts or self.absent):
            return None
        report = Report(
            handle,
            self.parent.host,
            self.served,
            self.size,
            self.seconds,
            self.corrupt,
            self.timeouts,
            self.absent,
        )
        self.served = self.size = self.corrupt = self.timeouts = self.absent = 0
        self.seconds = 0.0
        self.reported = now
        return report
