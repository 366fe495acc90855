"""Host, Task and Peer: what a scheduler knows, and their life cycles as tables.

A Host is a process that has a session; a Task is what is distributed; a Peer is a host's part in a
task. Sets of pieces are bitmaps (`runs`). Hosts and peers compare by identity; each leads to all
others, so none has a repr that follows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from p2p import runs
from p2p.messages import Announce, Description, Parent, Report

from .grants import Grants, SiteGrants
from .mean import Mean

HANDFUL = 256 << 10
"""Bytes of pieces that are granted and hinted as one, where only what is read is taken: the chunks
of small files cost all hosts more to ask for than to send."""


class HostState(Enum):
    """Where a host stands."""

    CONNECTED = "connected"
    """It has a session and has not said what it is."""
    ACTIVE = "active"
    ASIDE = "aside"
    """Nobody is sent to it until its probation ends; it may download."""
    GONE = "gone"


class TaskState(Enum):
    """Where a task stands."""

    PENDING = "pending"
    """No peer holds anything."""
    RUNNING = "running"
    COMPLETE = "complete"
    """Every piece is held by some peer: the source is not needed."""
    CHANGED = "changed"
    """The origin's file is another one now."""


class PeerState(Enum):
    """Where a host's part in a task stands."""

    JOINED = "joined"
    RUNNING = "running"
    """It has parents or a grant."""
    FINISHED = "finished"
    """It holds every piece."""
    LEFT = "left"


HOST_MOVES: dict[HostState, dict[str, HostState]] = {
    HostState.CONNECTED: {"announce": HostState.ACTIVE, "lose": HostState.GONE},
    HostState.ACTIVE: {
        "announce": HostState.ACTIVE,
        "isolate": HostState.ASIDE,
        "lose": HostState.GONE,
    },
    HostState.ASIDE: {
        "announce": HostState.ASIDE,
        "isolate": HostState.ASIDE,
        "forgive": HostState.ACTIVE,
        "lose": HostState.GONE,
    },
    HostState.GONE: {},
}

TASK_MOVES: dict[TaskState, dict[str, TaskState]] = {
    TaskState.PENDING: {"hold": TaskState.RUNNING, "change": TaskState.CHANGED},
    TaskState.RUNNING: {
        "hold": TaskState.RUNNING,
        "fill": TaskState.COMPLETE,
        "empty": TaskState.PENDING,
        "change": TaskState.CHANGED,
    },
    TaskState.COMPLETE: {
        "hold": TaskState.RUNNING,
        "fill": TaskState.COMPLETE,
        "empty": TaskState.PENDING,
        "change": TaskState.CHANGED,
    },
    TaskState.CHANGED: {"change": TaskState.CHANGED},
}

PEER_MOVES: dict[PeerState, dict[str, PeerState]] = {
    PeerState.JOINED: {
        "start": PeerState.RUNNING,
        "fill": PeerState.FINISHED,
        "leave": PeerState.LEFT,
    },
    PeerState.RUNNING: {
        "start": PeerState.RUNNING,
        "fill": PeerState.FINISHED,
        "leave": PeerState.LEFT,
    },
    PeerState.FINISHED: {
        "start": PeerState.FINISHED,
        "fill": PeerState.FINISHED,
        "drop": PeerState.RUNNING,
        "leave": PeerState.LEFT,
    },
    PeerState.LEFT: {},
}


@dataclass(slots=True, eq=False, repr=False)
class Host:
    """A process with a session."""

    id: bytes
    roles: frozenset[str]
    """What its certificate says that it may be."""
    state: HostState = HostState.CONNECTED
    announced: Announce | None = None
    peers: dict[int, Peer] = field(default_factory=dict)
    """By handle."""
    children: int = 0
    """Peers of all tasks that have it as a parent."""
    rate: float = 0.0
    """Bytes per second that children saw, smoothed; 0: not known."""
    served: int = 0
    failed: int = 0
    witness: bytes = b""
    """Whose word its reports are: its certificate's name, so that nobody agrees with himself."""

    @property
    def kind(self) -> str:
        """``peer``, ``seed``; empty before it has announced itself."""
        return self.announced.kind if self.announced else ""

    @property
    def idc(self) -> str:
        """The name of its site; empty: none was told."""
        return self.announced.idc.lower() if self.announced else ""

    @property
    def uploads(self) -> bool:
        """Whether children may be sent to it."""
        return self.state is HostState.ACTIVE and bool(self.announced and self.announced.address)

    def move(self, event: str) -> None:
        """Take a step of the life cycle."""
        self.state = HOST_MOVES[self.state][event]

    def learn(self, report: Report) -> None:
        """Learn from what a child says of it."""
        self.served += report.served
        self.failed += report.corrupt + report.timeouts
        if report.seconds > 0 and report.size:
            rate = report.size / report.seconds
            self.rate += (rate - self.rate) / 4 if self.rate else rate

    def parent(self) -> Parent:
        """Return what a child is told of it."""
        announced = self.announced
        assert announced is not None
        return Parent(self.id, announced.address, announced.kind)


@dataclass(frozen=True, slots=True)
class Stand:
    """What a deputy takes from the source while there is no scheduler."""

    source: Host | None
    """A seed; None: the origin."""
    turn: int
    turns: int
    """The pieces whose number leaves *turn* when it is divided by *turns*."""


@dataclass(slots=True, eq=False, repr=False)
class Peer:
    """A host's part in a task."""

    host: Host
    task: Task
    handle: int
    bulk: bool
    held: int = 0
    state: PeerState = PeerState.JOINED
    parents: dict[bytes, Host] = field(default_factory=dict)
    wanted: int = 0
    """Pieces it said WANT of and has not got."""
    urgent: int = 0
    """Those of them that a reader waits for."""
    useless: dict[bytes, float] = field(default_factory=dict)
    """Hosts that had nothing for it, and until when they are not its parents again."""
    failed: dict[bytes, float] = field(default_factory=dict)
    """Hosts that did not answer it, and until when it is not sent to them."""
    returned: dict[bytes, float] = field(default_factory=dict)
    """Seeds that it got nothing from, and until when it is granted nothing there."""
    sent: dict[int, Peer] = field(default_factory=dict)
    """Who it was sent to last for what it waits for, where it keeps step with others."""
    guests: int = 0
    """Pieces that such hosts were sent here for, and have not got."""
    orphans: int = 0
    """Those of them that only such hosts hold: as good as not held."""
    granted: int = 0
    """Pieces that it was ever told to take from the origin itself: it may publish their digests."""
    spare: tuple[Host, ...] = ()
    """Its parents when the scheduler is gone, where it takes only what is read."""
    had: tuple[bytes, ...] = ()
    """Its parents when it came, whom it keeps if they come too (`homecoming`)."""
    stand: Stand | None = None
    """What it is to do when the scheduler is gone (`deputies`)."""
    heard: float = 0.0
    """When it last said something."""
    visited: float = 0.0
    """Since when those are counted who are sent to it for what it holds."""
    visitors: int = 0
    place: int = 0
    """Its index in the task's list of peers."""
    among: int = 0
    """Peers of the task when its parents were drawn."""
    site: Site = field(init=False)
    fetches: bool = field(init=False)
    """It took all of it, and shared it, when it came."""

    def __post_init__(self) -> None:
        self.fetches = self.bulk and self.shares
        self.site = self.task.site(self.host.idc)

    def move(self, event: str) -> None:
        """Take a step of the life cycle."""
        self.state = PEER_MOVES[self.state][event]

    @property
    def shares(self) -> bool:
        """Whether what it holds is a copy that others can have, and not the source's own."""
        return self.host.uploads and self.host.kind != "seed"

    @property
    def missing(self) -> int:
        """Pieces of the task that it does not hold."""
        return self.task.full & ~self.held


@dataclass(slots=True, eq=False, repr=False)
class Site:
    """The hosts of one IDC that take part in a task, seeds not counted."""

    peers: dict[Peer, None] = field(default_factory=dict)
    held: int = 0
    """Pieces that one of them holds and shares; too many where the task's are *stale*."""
    grants: SiteGrants = field(default_factory=SiteGrants)
    """Pieces that are on their way from elsewhere."""
    fetchers: int = 0
    """Of them, those that take all of it and share it."""
    closed: bool = False
    """It keeps to itself (`crossing`)."""


@dataclass(slots=True, eq=False, repr=False)
class Task:
    """What is distributed."""

    id: bytes
    description: Description
    state: TaskState = TaskState.PENDING
    full: int = 0
    """The bitmap of all its pieces."""
    peers: list[Peer] = field(default_factory=list)
    """In no order: the last takes the place of one that leaves."""
    by_host: dict[bytes, Peer] = field(default_factory=dict)
    grants: Grants = field(default_factory=Grants)
    held: int = 0
    """Pieces that some peer which shares, and is no seed, holds."""
    stale: bool = False
    """*held* may say too much: a holder left."""
    wanters: dict[int, dict[Peer, float]] = field(default_factory=dict)
    """By piece, who said WANT and when it was last sent a HINT: who has waited longest first."""
    wanted: int = 0
    """Pieces with wanters."""
    holders: dict[int, list[Peer]] = field(default_factory=dict)
    """By piece, a few of its holders."""
    plenty: int = 0
    """Pieces with as many holders listed as are kept."""
    waits: dict[int, dict[Peer, float]] = field(default_factory=dict)
    """By piece, who of those that keep step waits for a free holder, and since when (`convoy`)."""
    waited: int = 0
    """Those pieces."""
    ways: dict[tuple[Peer, int], float] = field(default_factory=dict)
    """What they were sent to holders for, and when: the first is first."""
    road: Mean = field(default_factory=Mean)
    """How long that takes."""
    blocked: dict[Peer, None] = field(default_factory=dict)
    """Who has wants that no window had room for."""
    rotation: deque[Peer] = field(default_factory=deque)
    """Who takes all of it and has not got it yet: grants go round."""
    mixed: int = 0
    """Peers when it was last seen to it that parents are drawn among as many."""
    short: dict[Peer, None] = field(default_factory=dict)
    """Who has an empty parent's place."""
    idle: dict[Peer, float] = field(default_factory=dict)
    """Who has an empty parent's place and takes only what is read, and when that was looked at."""
    doubted: dict[bytes, dict[bytes, float]] = field(default_factory=dict)
    """By seed, who got nothing from it, and when."""
    seeded: bool = False
    """Seeds may be among the parents: every piece had left them once."""
    failing: dict[bytes, tuple[float, float]] = field(default_factory=dict)
    """Seeds that could not get pieces of it: until when they are not asked, and for how long."""
    digests: list[bytes | None] = field(default_factory=list)
    """Of a file: what has been published, by piece."""
    unsent: int = 0
    """Of a file: pieces whose digest has not been passed on yet."""
    sites: dict[str, Site] = field(default_factory=dict)
    """By IDC."""
    since: float = 0.0
    """When the first came."""
    doubt: float = 0.0
    """A grant has shown no life since: who was heard of after that comes before who was not."""
    settled: float = 0.0
    """No grants before: after a restart of the scheduler holders are still on their way back."""
    awaited: set[bytes] | None = None
    """Who was named by those who came back, and has not come; None: nobody was named."""
    deputies: dict[Site | None, list[Peer]] = field(default_factory=dict)
    """Who goes on when the scheduler is gone: of each site that keeps to itself, of the rest."""

    def __post_init__(self) -> None:
        self.full = runs.full(self.description.pieces)

    def move(self, event: str) -> None:
        """Take a step of the life cycle."""
        self.state = TASK_MOVES[self.state][event]

    @property
    def handful(self) -> int:
        """Return how many pieces are given as one, at least one."""
        return max(1, HANDFUL // self.piece_size)

    @property
    def piece_size(self) -> int:
        """Bytes of a piece, on average."""
        return max(1, self.description.size // max(1, self.description.pieces))

    def add(self, peer: Peer) -> None:
        """Let a peer take part."""
        peer.place = len(self.peers)
        self.peers.append(peer)
        self.by_host[peer.host.id] = peer
        if peer.host.kind != "seed":
            self.sites[peer.host.idc] = peer.site
            peer.site.peers[peer] = None
            peer.site.fetchers += peer.fetches

    def site(self, idc: str) -> Site:
        """Return the site of an IDC."""
        return self.sites.get(idc) or Site()

    def gain(self, peer: Peer, new: int) -> None:
        """Note that a peer which shares holds more."""
        self.held |= new
        peer.site.held |= new

    def remove(self, peer: Peer) -> None:
        """Take a peer out of the list and all turns; what it held and wanted is not seen to."""
        del self.by_host[peer.host.id]
        self.blocked.pop(peer, None)
        self._leave_site(peer)
        if peer in self.rotation:
            self.rotation.remove(peer)
        last = self.peers.pop()
        if last is not peer:
            self.peers[peer.place] = last
            last.place = peer.place

    def counted(self) -> int:
        """Return *held* as it is now: the union over all peers that share and are no seeds."""
        if self.stale:
            self.held = 0
            for site in self.sites.values():
                site.held = 0
            for peer in self.peers:
                if peer.shares:
                    self.gain(peer, peer.held)
            self.stale = False
        return self.held

    def _leave_site(self, peer: Peer) -> None:
        if peer in peer.site.peers:
            del peer.site.peers[peer]
            peer.site.fetchers -= peer.fetches
        if not peer.site.peers:
            for idc in [each for each, site in self.sites.items() if site is peer.site]:
                del self.sites[idc]
