"""A virtual host that takes part: the real chooser as a child, an uploader as a parent."""

from __future__ import annotations

from random import Random
from typing import Any, Protocol

from p2p import runs
from p2p.choosing.chooser import AHEAD, READER, Choice, Chooser, Patience
from p2p.messages import Body

from .links import Upload
from .program import Program
from .scenario import Group
from .uploader import Net, Uploader
from .world import World

TASK = bytes(32)
HANDLE = 1


class Control(Protocol):
    """The way to the scheduler."""

    @property
    def there(self) -> bool:
        """Whether there is one."""
        ...

    def tell(self, node: Uploader, body: Body) -> None:
        """Send it a message."""

    def done(self, node: Node) -> None:
        """Note that a host has all that it wanted."""


class Node(Uploader):
    """A host that takes part."""

    __slots__ = (
        "_armed",
        "_parents",
        "_program",
        "_session",
        "_uploads",
        "born",
        "chooser",
        "control",
        "finished",
    )

    def __init__(self, world: World, net: Net, control: Control, index: int, group: Group) -> None:
        super().__init__(world, net, index, group)
        self.control = control
        self.born = 0.0
        self.finished = -1.0
        seed = world.random.getrandbits(64)
        patience = Patience(total=world.scenario.policy.total)
        self.chooser = Chooser(HANDLE, TASK, world.description, Random(seed), patience)
        self._session = False
        """There is one with the scheduler."""
        self._uploads: dict[int, Upload] = {}
        self._armed = float("inf")
        self._program: Program | None = None
        self._parents: dict[bytes, Uploader] = {}

    @property
    def held(self) -> int:
        """The pieces that are here."""
        return self.chooser.held

    def start(self, _: object = None) -> None:
        """Come to life."""
        self.born = self.clock.now
        chance, count = Random(self.world.random.getrandbits(64)), self.world.count
        if self.group.held:
            had = runs.of(n for n in range(count) if chance.random() < self.group.held)
            self.chooser.holds(had, self.born)
        if self.group.lazy:
            common = Random(self.world.scenario.seed) if self.group.alike else chance
            self._program = Program(self.group, count, common, chance)
            for piece in self._program.listed:
                self.chooser.want(piece, AHEAD, self.born)
        else:
            self.chooser.want_all(True)
        if self.control.there:
            self.scheduled(None)
        if self._program is not None:
            for _reader in range(self.group.ahead):
                self._read_on(self._program)
        if self.chooser.complete and self.finished < 0:
            self._finish()
        self.step()

    # What the scheduler says

    def scheduled(self, _: object) -> None:
        """Have a session with the scheduler."""
        if self.dead:
            return
        self._session = True
        self.control.tell(self, self.announce())
        for body in self.chooser.join(self.clock.now):
            self.control.tell(self, body)
        self.step()

    def unscheduled(self, _: object) -> None:
        """Lose it."""
        self._session = False
        self.chooser.unscheduled(self.clock.now)
        self.step()

    def told(self, body: Body) -> None:
        """Take what the scheduler says."""
        if self._asleep(self.told, body):
            return
        self.chooser.take(body, self.clock.now)
        self.step()

    # What parents say

    def linked(self, fact: tuple[Uploader, int]) -> None:
        """Have a session with a host that says what it has."""
        if self._asleep(self.linked, (fact,)):
            return
        parent, held = fact
        now = self.clock.now
        self._parents[parent.id] = parent
        self.chooser.linked(parent.id, now)
        self.chooser.offered(parent.id, held, 0, True, now)
        self.step()

    def unlinked(self, parent: Uploader) -> None:
        """Lose a session."""
        if self._asleep(self.unlinked, parent):
            return
        self._parents.pop(parent.id, None)
        self.chooser.unlinked(parent.id, self.clock.now)
        self.step()

    def offered(self, host: bytes, added: int) -> None:
        """Hear what a parent has got."""
        if (self.dead or self.stalled) and self._asleep(self.offered, (host, added)):
            return
        if self.chooser.offered(host, added, 0, False, self.clock.now):
            self.step()

    def absent(self, upload: Upload) -> None:
        """Hear that a parent does not have a piece."""
        if self._asleep(self.absent, upload):
            return
        self._uploads.pop(upload.number, None)
        self.chooser.absent(upload.number, self.clock.now)
        self.step()

    def arrived(self, parent: Uploader, upload: Upload) -> None:
        """Get a piece."""
        if self._asleep(self.arrived, (parent, upload)):
            return
        known = self._uploads.pop(upload.number, None)
        if known is None or parent.corrupt or self.held >> upload.piece & 1:
            self.world.wasted += upload.size
        if parent.corrupt:
            self.chooser.corrupt(upload.number, self.clock.now)
        elif known is not None:
            self._gain(upload.piece)
            self.chooser.arrived(upload.number, upload.size, self.clock.now)
        self._progress(upload.piece)

    def read(self, piece: int) -> None:
        """Get a piece from the origin."""
        if self._asleep(self.read, piece):
            return
        self._gain(piece)
        self.chooser.fetched(piece, self.clock.now)
        self._progress(piece)

    # What to do

    def step(self) -> None:
        """Do what the chooser says."""
        if self.dead or self.stalled:
            return
        choice = self.chooser.choose(self.clock.now)
        world = self.world
        for ask in choice.asks:
            upload = Upload(self, ask.number, ask.piece, world.size(ask.piece), ask.priority)
            self._uploads[ask.number] = upload
            parent = self._parents.get(ask.host)
            if parent is not None:
                world.send(self, parent, parent.requested, upload)
        if choice.cancels:
            for ask in choice.cancels:
                cancelled = self._uploads.get(ask.number)
                if cancelled is not None:
                    cancelled.gone = True
        for body in choice.control if self._session else ():
            self.control.tell(self, body)
        if choice.connect or choice.approach or choice.leave or choice.origin:
            self._outward(choice)
        if choice.wake < self._armed:
            self._armed = choice.wake
            self.clock.at(choice.wake, self._wake, choice.wake)

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
        for parent in choice.connect + choice.approach:
            other = self.net.node(parent.host)
            if other is None:
                self.clock.at(self.clock.now + 0.1, self._refused, parent.host)
            else:
                # a connection and TLS take two round trips
                trips = 4 * self.world.latency(self, other)
                self.world.send(self, other, other.follow, self, trips)
        for host in choice.leave:
            gone = self._parents.pop(host, None)
            if gone is not None:
                gone.followers.pop(self, None)
        for piece in choice.origin:
            self.net.read(self, piece)

    def _refused(self, host: bytes) -> None:
        if not self.dead:
            self.chooser.unlinked(host, self.clock.now)
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
        if self._program is not None:
            for seconds in self._program.came(piece):
                if seconds:
                    self.clock.at(self.clock.now + seconds, self._thought, self._program)
                else:
                    self._thought(self._program)
        elif self.finished < 0 and self.chooser.complete:
            self._finish()
        self.step()

    def _thought(self, program: Program) -> None:
        program.thought()
        self._read_on(program)
        self.step()

    def _read_on(self, program: Program) -> None:
        """Let a reader want its next pieces."""
        for piece in sorted(program.read(self.held)):
            self.chooser.want(piece, READER, self.clock.now)
        if program.over and self.finished < 0:
            self._finish()

    def _finish(self) -> None:
        self.finished = self.clock.now
        self.control.done(self)
