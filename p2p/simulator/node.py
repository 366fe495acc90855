"""A virtual host: the real chooser as a child, a simple uploader as a parent."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any, Protocol

from p2p import runs
from p2p.choosing import AHEAD, READER, Choice, Chooser, Patience
from p2p.messages import Announce, Body

from .links import Pipe, Uplink, Upload
from .scenario import Group
from .world import SEGMENT, World

TASK = bytes(32)
HANDLE = 1


class Control(Protocol):
    """The way to the scheduler."""

    def tell(self, node: Node, body: Body) -> None:
        """Send it a message."""

    def done(self, node: Node) -> None:
        """Note that a host has all that it wanted."""


class Net(Protocol):
    """The other hosts, and the origin."""

    def node(self, host: bytes) -> Uploader | None:
        """Return a host that lives."""

    def read(self, node: Uploader, piece: int) -> None:
        """Read a piece from the origin for a host; `Uploader.read` is called with it."""


class Uploader:
    """What every host does: it serves what it holds."""

    kind = "peer"

    def __init__(self, world: World, net: Net, index: int, group: Group) -> None:
        self.world = world
        self.net = net
        self.index = index
        self.group = group
        self.id = index.to_bytes(16, "big")
        self.latency = group.latency
        self.site = group.site
        self.dead = False
        self.stalled = False
        self.corrupt = False
        self.lies = False
        self.uplink = Uplink(world.clock, group.up, world.random, self._left)
        self.down = Pipe(group.down)
        self.slots = world.scenario.policy.uploads
        self.serving = 0
        self.sent = 0
        self.followers: dict[Node, None] = {}
        self._queues: tuple[deque[Upload], ...] = (deque(), deque(), deque())
        self._fresh = 0
        self._last_told = -1.0
        self._telling = False
        self._backlog: list[tuple[Any, Any]] = []

    @property
    def held(self) -> int:
        """The pieces that are here."""
        raise NotImplementedError

    def announce(self) -> Announce:
        """Return what the scheduler is told."""
        address = f"h{self.index}:1" if self.group.uploads else ""
        return Announce(address, self.kind, idc=self.site, name=f"h{self.index}")

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
        child = upload.to
        assert isinstance(child, Node)
        self.world.send(self, child, child.absent, upload)

    def enqueue(self, upload: Upload) -> None:
        """Serve an upload now or in its turn."""
        if self.serving < self.slots:
            self._serve(upload)
        else:
            self._queues[upload.priority].append(upload)

    def follow(self, node: Node) -> None:
        """Take a follower; it is told what is here."""
        if self.dead:
            self.world.send(self, node, node.unlinked, self)
            return
        if self.stalled:
            self._backlog.append((self.follow, node))
            return
        self.followers[node] = None
        held = runs.full(self.world.count) if self.lies else self.held
        self.world.send(self, node, node.linked, (self, held))

    def gained(self, piece: int) -> None:
        """Tell followers of a piece: at once, or when the last word is long enough ago."""
        self._fresh |= 1 << piece
        if not self._telling and self.followers:
            self._telling = True
            again = self._last_told + self.world.scenario.policy.coalesce
            self.world.clock.at(max(self.world.clock.now, again), self._tell)

    def die(self) -> None:
        """End at once: every session with it breaks."""
        self.dead = True
        self.uplink = Uplink(self.world.clock, self.group.up, self.world.random, self._left)
        for node in self.followers:
            self.world.send(self, node, node.unlinked, self)

    def lie(self) -> None:
        """Claim to have everything, from now on."""
        self.lies = True
        for node in self.followers:
            self.world.send(self, node, node.offered, (self.id, runs.full(self.world.count)))

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
            what(fact)

    def _tell(self, _: object) -> None:
        self._telling = False
        if self.dead:
            return
        if self.stalled:
            self._backlog.append((self._tell, None))
            return
        fresh, self._fresh = self._fresh, 0
        self._last_told = self.world.clock.now
        for node in self.followers:
            self.world.send(self, node, node.offered, (self.id, fresh))

    def _serve(self, upload: Upload) -> None:
        self.serving += 1
        self.uplink.start(upload)

    def _left(self, upload: Upload) -> None:
        """Let an upload that has left the uplink go on its way."""
        child = upload.to
        assert isinstance(child, Node)
        self.sent += upload.size
        arrives = self.world.through(self, child, upload, child.down)
        if self.group.loss:
            arrives = max(arrives, upload.began + upload.size / self._reaches(child))
        self.world.clock.at(arrives, self._arrives, upload)

    def _reaches(self, child: Uploader) -> float:
        """Return the rate that TCP reaches under loss, by Mathis' formula."""
        trip = max(1e-4, 2 * self.world.latency(self, child))
        return float(SEGMENT / trip * (1.5 / self.group.loss) ** 0.5)

    def _arrives(self, upload: Upload) -> None:
        self.serving -= 1
        if not self.dead:
            self._next()
        child = upload.to
        assert isinstance(child, Node)
        if not upload.gone or not child.dead:
            child.arrived((self, upload))

    def _next(self) -> None:
        for queue in self._queues:
            while queue and self.serving < self.slots:
                upload = queue.popleft()
                if not upload.gone:
                    self._serve(upload)


class Node(Uploader):
    """A host that takes part."""

    def __init__(self, world: World, net: Net, control: Control, index: int, group: Group) -> None:
        super().__init__(world, net, index, group)
        self.control = control
        self.born = 0.0
        self.finished = -1.0
        seed = world.random.getrandbits(64)
        patience = Patience(total=world.scenario.policy.total)
        self.chooser = Chooser(HANDLE, TASK, world.description, Random(seed), patience)
        self._uploads: dict[int, Upload] = {}
        self._armed = float("inf")
        self._trace: deque[int] = deque()
        self._waiting: set[int] = set()
        self._parents: dict[bytes, Uploader] = {}

    @property
    def held(self) -> int:
        """The pieces that are here."""
        return self.chooser.held

    def start(self, _: object = None) -> None:
        """Come to life."""
        self.born = self.world.clock.now
        chance, count = Random(self.world.random.getrandbits(64)), self.world.count
        if self.group.held:
            had = runs.of(n for n in range(count) if chance.random() < self.group.held)
            self.chooser.holds(had, self.born)
        if self.group.lazy:
            length = max(1, round(count * self.group.lazy))
            self._trace.extend(sorted(chance.sample(range(count), length)))
        else:
            self.chooser.want_all(True)
        self.scheduled(None)
        for _reader in range(self.group.ahead):
            self._read_on()
        if self.chooser.complete and self.finished < 0:
            self._finish()
        self.step()

    def scheduled(self, _: object) -> None:
        """Have a session with the scheduler."""
        if self.dead:
            return
        self.control.tell(self, self.announce())
        for body in self.chooser.join(self.world.clock.now):
            self.control.tell(self, body)
        self.step()

    def unscheduled(self, _: object) -> None:
        """Lose it."""
        self.chooser.unscheduled(self.world.clock.now)
        self.step()

    def told(self, body: Body) -> None:
        """Take what the scheduler says."""
        if self._asleep(self.told, body):
            return
        self.chooser.take(body, self.world.clock.now)
        self.step()

    def linked(self, fact: tuple[Uploader, int]) -> None:
        """Have a session with a host that says what it has."""
        if self._asleep(self.linked, fact):
            return
        parent, held = fact
        now = self.world.clock.now
        self._parents[parent.id] = parent
        self.chooser.linked(parent.id, now)
        self.chooser.offered(parent.id, held, 0, True, now)
        self.step()

    def unlinked(self, parent: Uploader) -> None:
        """Lose a session."""
        if self._asleep(self.unlinked, parent):
            return
        self._parents.pop(parent.id, None)
        self.chooser.unlinked(parent.id, self.world.clock.now)
        self.step()

    def offered(self, fact: tuple[bytes, int]) -> None:
        """Hear what a parent has got."""
        if self._asleep(self.offered, fact):
            return
        self.chooser.offered(fact[0], fact[1], 0, False, self.world.clock.now)
        chooser = self.chooser
        if chooser.hungry and fact[1] & ~chooser.held:
            self.step()

    def absent(self, upload: Upload) -> None:
        """Hear that a parent does not have a piece."""
        if self._asleep(self.absent, upload):
            return
        self._uploads.pop(upload.number, None)
        self.chooser.absent(upload.number, self.world.clock.now)
        self.step()

    def arrived(self, fact: tuple[Uploader, Upload]) -> None:
        """Get a piece."""
        if self._asleep(self.arrived, fact):
            return
        parent, upload = fact
        known = self._uploads.pop(upload.number, None)
        if known is None or parent.corrupt or self.held >> upload.piece & 1:
            self.world.wasted += upload.size
        if parent.corrupt:
            self.chooser.corrupt(upload.number, self.world.clock.now)
        elif known is not None:
            self._gain(upload.piece)
            self.chooser.arrived(upload.number, upload.size, self.world.clock.now)
        self._progress(upload.piece)

    def read(self, piece: int) -> None:
        """Get a piece from the origin."""
        if self._asleep(self.read, piece):
            return
        self._gain(piece)
        self.chooser.fetched(piece, self.world.clock.now)
        self._progress(piece)

    def step(self) -> None:
        """Do what the chooser says."""
        if self.dead or self.stalled:
            return
        choice = self.chooser.choose(self.world.clock.now)
        for ask in choice.asks:
            parent = self._parents.get(ask.host)
            upload = Upload(self, ask.number, ask.piece, self.world.size(ask.piece), ask.priority)
            self._uploads[ask.number] = upload
            if parent is not None:
                self.world.send(self, parent, parent.requested, upload)
        if choice.cancels:
            for ask in choice.cancels:
                cancelled = self._uploads.get(ask.number)
                if cancelled is not None:
                    cancelled.gone = True
        for body in choice.control:
            self.control.tell(self, body)
        if choice.connect or choice.leave or choice.origin:
            self._outward(choice)
        if choice.wake < self._armed:
            self._armed = choice.wake
            self.world.clock.at(choice.wake, self._wake, choice.wake)

    def die(self) -> None:
        """End at once: every session with it breaks."""
        super().die()
        for parent in self._parents.values():
            parent.followers.pop(self, None)

    def resume(self) -> None:
        """Go on."""
        super().resume()
        self.step()

    def _outward(self, choice: Choice) -> None:
        for parent in choice.connect:
            other = self.net.node(parent.host)
            if other is None:
                self.world.clock.at(self.world.clock.now + 0.1, self._refused, parent.host)
            else:
                # a connection and TLS take two round trips
                self.world.send(
                    self, other, other.follow, self, 4 * self.world.latency(self, other)
                )
        for host in choice.leave:
            gone = self._parents.pop(host, None)
            if gone is not None:
                gone.followers.pop(self, None)
        for piece in choice.origin:
            self.net.read(self, piece)

    def _refused(self, host: bytes) -> None:
        if not self.dead:
            self.chooser.unlinked(host, self.world.clock.now)
            self.step()

    def _asleep(self, what: Any, fact: Any) -> bool:
        if self.stalled and not self.dead:
            self._backlog.append((what, fact))
        return self.dead or self.stalled

    def _wake(self, when: float) -> None:
        if when == self._armed:
            self._armed = float("inf")
            self.step()

    def _gain(self, piece: int) -> None:
        if not self.held >> piece & 1:
            self.world.needed += self.world.size(piece)
            self.gained(piece)

    def _progress(self, piece: int) -> None:
        if self.group.lazy:
            if piece in self._waiting:
                self._waiting.discard(piece)
                self._read_on()
        elif self.finished < 0 and self.chooser.complete:
            self._finish()
        self.step()

    def _read_on(self) -> None:
        """Let a reader want its next piece."""
        while self._trace:
            piece = self._trace.popleft()
            if not self.held >> piece & 1:
                self._waiting.add(piece)
                self.chooser.want(piece, READER, self.world.clock.now)
                return
        if self.group.lazy and not self._waiting and self.finished < 0:
            self._finish()

    def _finish(self) -> None:
        self.finished = self.world.clock.now
        self.control.done(self)


class Seed(Uploader):
    """A seed peer: gets what it lacks from the origin."""

    kind = "seed"

    def __init__(self, world: World, net: Net, index: int, group: Group) -> None:
        super().__init__(world, net, index, group)
        self.slots = world.scenario.policy.seed_uploads
        self._held = runs.full(world.count) if world.scenario.seeds.warm else 0
        self._wanted: dict[int, list[Upload]] = {}
        self._reads: deque[int] = deque()
        self._reading = 0

    @property
    def held(self) -> int:
        """The pieces that are here."""
        return self._held

    def lacks(self, upload: Upload) -> None:
        """Get it from the origin first."""
        waiting = self._wanted.get(upload.piece)
        if waiting is None:
            self._wanted[upload.piece] = [upload]
            self._reads.append(upload.piece)
            self._read_on()
        else:
            waiting.append(upload)

    def read(self, piece: int) -> None:
        """Get a piece from the origin."""
        if self.dead:
            return
        self._held |= 1 << piece
        self._reading -= 1
        self._read_on()
        self.gained(piece)
        for upload in self._wanted.pop(piece, ()):
            if not upload.gone:
                self.enqueue(upload)

    def _read_on(self) -> None:
        while self._reads and self._reading < self.world.scenario.policy.reads:
            self._reading += 1
            self.net.read(self, self._reads.popleft())


__all__ = ["AHEAD", "Control", "Net", "Node", "Seed", "Uploader"]
