"""What every virtual host does: it serves what it holds, and tells of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Protocol

from p2p import runs
from p2p.messages import Announce

from .links import Pipe, Uplink, Upload
from .scenario import Group
from .world import SEGMENT, Place, World


class Child(Place, Protocol):
    """Who is served."""

    down: Pipe

    def linked(self, fact: tuple[Uploader, int]) -> None:
        """Have a session with a host that says what it has."""

    def unlinked(self, parent: Uploader) -> None:
        """Lose a session."""

    def offered(self, host: bytes, added: int) -> None:
        """Hear what a parent has got."""

    def absent(self, upload: Upload) -> None:
        """Hear that a parent does not have a piece."""

    def arrived(self, parent: Uploader, upload: Upload) -> None:
        """Get a piece."""


class Net(Protocol):
    """The other hosts, and the origin."""

    def node(self, host: bytes) -> Uploader | None:
        """Return a host that lives."""

    def read(self, node: Uploader, piece: int) -> None:
        """Read a piece from the origin for a host; `Uploader.read` is called with it."""


class Uploader(ABC):
    """A host as far as it serves others."""

    __slots__ = (
        "_backlog",
        "_fresh",
        "_last_told",
        "_queued",
        "_queues",
        "_telling",
        "clock",
        "corrupt",
        "dead",
        "down",
        "followers",
        "group",
        "id",
        "index",
        "latency",
        "lies",
        "lost",
        "net",
        "sent",
        "serving",
        "site",
        "slots",
        "stalled",
        "uplink",
        "world",
    )
    kind = "peer"

    def __init__(self, world: World, net: Net, index: int, group: Group) -> None:
        self.world = world
        self.clock = world.clock
        self.net = net
        self.index = index
        self.group = group
        self.id = index.to_bytes(16, "big")
        self.latency = group.latency
        self.site = group.site
        self.dead = False
        self.stalled = False
        self.lost = False
        """It will never go on."""
        self.corrupt = False
        self.lies = False
        self.uplink = Uplink(world.clock, group.up, world.random, self._left)
        self.down = Pipe(group.down)
        self.slots = world.scenario.policy.uploads
        self.serving = 0
        self.sent = 0
        self.followers: dict[Child, None] = {}
        self._queues: tuple[deque[Upload], ...] = (deque(), deque(), deque())
        self._queued = 0
        self._fresh = 0
        self._last_told = -1.0
        self._telling = False
        self._backlog: list[tuple[Any, Any]] = []

    @property
    @abstractmethod
    def held(self) -> int:
        """The pieces that are here."""

    def announce(self) -> Announce:
        """Return what the scheduler is told."""
        address = f"h{self.index}:1" if self.group.uploads else ""
        return Announce(address, self.kind, idc=self.site, name=f"h{self.index}")

    @abstractmethod
    def read(self, piece: int) -> None:
        """Get a piece from the origin."""

    # Serving

    def requested(self, upload: Upload) -> None:
        """Take a request."""
        if self.dead or upload.gone:
            return
        if self.stalled:
            self._backlog.append((self.requested, upload))
        elif self.held >> upload.piece & 1:
            self.enqueue(upload)
        else:
            self.lacks(upload)

    def lacks(self, upload: Upload) -> None:
        """Answer a request for what is not here."""
        child = _child(upload)
        self.world.send(self, child, child.absent, upload)

    def enqueue(self, upload: Upload) -> None:
        """Serve an upload now or in its turn."""
        if self.serving < self.slots:
            self.serving += 1
            self.uplink.start(upload)
        else:
            self._queued += 1
            self._queues[upload.priority].append(upload)

    def _left(self, upload: Upload) -> None:
        """Let an upload that has left the uplink go on its way."""
        child = _child(upload)
        self.sent += upload.size
        arrives = self.world.through(self, child, upload, child.down)
        if self.group.loss:
            arrives = max(arrives, upload.began + upload.size / self._reaches(child))
        self.clock.at(arrives, self._arrives, upload)

    def _reaches(self, child: Child) -> float:
        """Return the rate that TCP reaches under loss, by Mathis' formula."""
        trip = max(1e-4, 2 * self.world.latency(self, child))
        return float(SEGMENT / trip * (1.5 / self.group.loss) ** 0.5)

    def _arrives(self, upload: Upload) -> None:
        self.serving -= 1
        if self._queued and not self.dead:
            self._next()
        child = _child(upload)
        if not upload.gone or not child.dead:
            child.arrived(self, upload)

    def _next(self) -> None:
        for queue in self._queues:
            while queue and self.serving < self.slots:
                upload = queue.popleft()
                self._queued -= 1
                if not upload.gone:
                    self.serving += 1
                    self.uplink.start(upload)

    # Telling

    def follow(self, child: Child) -> None:
        """Take a follower; it is told what is here."""
        if self.dead:
            self.world.send(self, child, child.unlinked, self)
            return
        if self.stalled:
            self._backlog.append((self.follow, child))
            return
        self.followers[child] = None
        held = runs.full(self.world.count) if self.lies else self.held
        self.world.send(self, child, child.linked, (self, held))

    def gained(self, piece: int) -> None:
        """Tell followers of a piece: at once, or when the last word is long enough ago."""
        self._fresh |= 1 << piece
        if self._telling or not self.followers:
            return
        again = self._last_told + self.world.scenario.policy.coalesce
        if again <= self.clock.now:
            self._tell(None)
        else:
            self._telling = True
            self.clock.at(again, self._tell)

    def lie(self) -> None:
        """Claim to have everything, from now on."""
        self.lies = True
        self.world.cast(self, self.followers, self._heard, runs.full(self.world.count))

    def _tell(self, _: object) -> None:
        self._telling = False
        if self.dead:
            return
        if self.stalled:
            self._backlog.append((self._tell, None))
            return
        fresh, self._fresh = self._fresh, 0
        self._last_told = self.clock.now
        self.world.cast(self, self.followers, self._heard, fresh)

    def _heard(self, fact: tuple[int, list[Child]]) -> None:
        """Let followers hear at once what one event each would tell them one by one."""
        host, (added, children) = self.id, fact
        for child in children:
            child.offered(host, added)

    # What goes wrong

    def die(self) -> None:
        """End at once: every session with it breaks."""
        self.dead = True
        self.uplink = Uplink(self.clock, self.group.up, self.world.random, self._left)
        for child in self.followers:
            self.world.send(self, child, child.unlinked, self)

    def stall(self) -> None:
        """Stand still: sessions stay, nothing is answered."""
        self.stalled = True
        self.uplink.set_rate(0)

    def resume(self) -> None:
        """Go on."""
        self.stalled = False
        self.uplink.set_rate(self.group.up)
        backlog, self._backlog = self._backlog, []
        for what, fact in backlog:
            what(*fact) if isinstance(fact, tuple) else what(fact)


def _child(upload: Upload) -> Child:
    return upload.to  # type: ignore[return-value]  # hosts upload to children only
