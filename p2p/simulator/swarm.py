"""One simulation: hosts come, take what they want, and things go wrong as planned."""

from __future__ import annotations

import gc
from random import Random

from p2p.messages import Body
from p2p.scheduling.evaluator import EVALUATORS, Limits
from p2p.scheduling.scheduler import Action, Scheduler, Settings

from .faults import Faults
from .links import Uplink, Upload
from .node import Node
from .report import Report
from .scenario import Group, Scenario
from .seed import Seed
from .uploader import Uploader
from .world import World

ROLES = ("peer", "seed")


class _Centre:
    """Where the scheduler and the origin stand: no partition cuts them from the seeds."""

    index = -1
    latency = 0.0005
    site = ""
    dead = False


class Swarm:
    """All hosts of a simulation, the scheduler and the origin."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.world = World(scenario)
        self.clock = self.world.clock
        self.nodes: list[Node] = []
        self.seeds: list[Seed] = []
        self.scheduler: Scheduler | None = None
        self.told = self.said = self.origin_bytes = 0
        self.aside: dict[tuple[str, str], None] = {}
        self._all: dict[bytes, Uploader] = {}
        self._left = 0
        self._centre = _Centre()
        self._origin = Uplink(
            self.clock, scenario.origin.rate, self.world.random, self._origin_left
        )
        self._armed = float("inf")
        self._epoch = 0

    def run(self) -> Report:
        """Let it happen."""
        self._populate()
        self.start_scheduler()
        faults = Faults(self)
        for fault in self.scenario.fault:
            self.clock.at(fault.at, faults.happen, fault)
        self.clock.run(self.scenario.ends, lambda: self._left <= 0)
        return self._report()

    # For hosts

    @property
    def there(self) -> bool:
        """Whether there is a scheduler."""
        return self.scheduler is not None

    def tell(self, node: Uploader, body: Body) -> None:
        """Send the scheduler a message."""
        self.world.send(node, self._centre, self._take, (node, body, self._epoch))

    def done(self, node: Node) -> None:
        """Note that a host has all that it wanted."""
        self._left -= 1

    def node(self, host: bytes) -> Uploader | None:
        """Return a host that lives."""
        found = self._all.get(host)
        return None if found is None or found.dead else found

    def read(self, node: Uploader, piece: int) -> None:
        """Read a piece from the origin for a host."""
        upload = Upload(node, 0, piece, self.world.size(piece), 0)
        self.world.send(
            node, self._centre, self._origin_asked, upload, self.scenario.origin.latency
        )

    # For faults

    def gone(self, node: Uploader) -> None:
        """Let the scheduler see that a session ended."""
        self.world.send(node, self._centre, self._gone, node)
        self.lose(node)

    def lose(self, node: Uploader) -> None:
        """Wait no longer for a host."""
        node.lost = True
        if isinstance(node, Node) and node.finished < 0:
            self._left -= 1

    def start_scheduler(self, _: object = None) -> None:
        """Start one that knows nothing, where there is none; whoever is there comes to it."""
        if self.scheduler is not None:
            return
        settings = Settings(
            Limits(
                self.scenario.policy.candidate_parents,
                self.scenario.policy.filter_parents,
                self.scenario.policy.peer_load,
            ),
            EVALUATORS[self.scenario.policy.evaluator],
        )
        chance = Random(self.world.random.getrandbits(64))
        # the first one is not one that restarted: nobody is on the way back to it
        started = self.clock.now if self._epoch else -settings.grace
        self.scheduler = Scheduler(settings, chance, started)
        self._epoch += 1
        for seed in self.seeds:
            self.tell(seed, seed.announce())
        for node in self.nodes:
            if node.born and not node.dead:
                spread = self.world.random.random() * 0.2
                self.clock.at(self.clock.now + spread, node.scheduled)

    def stop_scheduler(self) -> None:
        """Let it die."""
        self.scheduler = None
        self._epoch += 1
        for node in self.nodes:
            if not node.dead:
                self.world.send(self._centre, node, node.unscheduled, None)

    def cut_origin(self, rate: float) -> None:
        """Make the origin slower, 0: silent."""
        self._origin.set_rate(rate)

    # Inside

    def _populate(self) -> None:
        index = 0
        seeds = self.scenario.seeds
        for _ in range(seeds.hosts):
            group = Group(seeds.hosts, up=seeds.up, down=seeds.down, latency=seeds.latency)
            seed = Seed(self.world, self, index, group)
            self.seeds.append(seed)
            self._all[seed.id] = seed
            index += 1
        for group in self.scenario.group:
            for number in range(group.hosts):
                node = Node(self.world, self, self, index, group)
                self.nodes.append(node)
                self._all[node.id] = node
                arrive = group.arrive + group.over * number / max(1, group.hosts - 1)
                self.clock.at(max(arrive, 0.01), node.start)
                index += 1
        self._left = len(self.nodes)

    def _take(self, fact: tuple[Uploader, Body, int]) -> None:
        node, body, epoch = fact
        if self.scheduler is None or epoch != self._epoch or node.dead:
            return
        self.told += 1
        actions: list[Action] = []
        if node.id not in self.scheduler.hosts:
            actions += self.scheduler.connected(node.id, ROLES, self.clock.now)
        actions += self.scheduler.take(node.id, body, self.clock.now)
        self._act(actions)

    def _gone(self, node: Uploader) -> None:
        if self.scheduler is not None:
            self._act(self.scheduler.gone(node.id, self.clock.now))

    def _tick(self, when: float) -> None:
        if when != self._armed:
            return
        self._armed = float("inf")
        if self.scheduler is None:
            return
        self._act(self.scheduler.tick(self.clock.now))

    def _act(self, actions: list[Action]) -> None:
        assert self.scheduler is not None
        for host, body in actions:
            self.said += 1
            node = self._all[host]
            if isinstance(node, Node) and not node.dead:
                self.world.send(self._centre, node, node.told, body)
        for host, sentence in self.scheduler.isolation.aside.items():
            self.aside[f"h{int.from_bytes(host, 'big')}", sentence.reason] = None
        due = max(self.scheduler.due(), self.clock.now)
        if due < self._armed:
            self._armed = due
            self.clock.at(due, self._tick, due)

    def _origin_asked(self, upload: Upload) -> None:
        self._origin.start(upload)

    def _origin_left(self, upload: Upload) -> None:
        node = upload.to
        assert isinstance(node, Node | Seed)
        self.origin_bytes += upload.size
        arrives = self.world.through(self._centre, node, upload, node.down)
        self.clock.at(arrives + self.scenario.origin.latency, node.read, upload.piece)

    def _report(self) -> Report:
        nodes = self.nodes
        took = sorted(
            node.finished - node.born for node in nodes if node.finished >= 0 and not node.lost
        )
        living = sum(not node.lost for node in nodes)
        ended = max((node.finished for node in nodes), default=0.0)
        if len(took) < living:
            ended = self.clock.now
        up = sum(each.group.up for each in [*nodes, *self.seeds] if each.group.uploads)
        sent = sum(each.sent for each in [*nodes, *self.seeds])
        size = self.scenario.size
        source = sum(seed.sent for seed in self.seeds) or self.origin_bytes
        return Report(
            hosts=len(nodes),
            living=living,
            finished=len(took),
            bound=self.scenario.bound(),
            first=took[0] if took else 0.0,
            median=_share(took, 0.5),
            p90=_share(took, 0.9),
            p99=_share(took, 0.99),
            last=took[-1] if took else 0.0,
            ended=ended,
            origin=self.origin_bytes / size,
            source=source / size,
            wasted=self.world.wasted / max(1, self.world.needed),
            crossed={name: site.received / size for name, site in self.world.sites.items()},
            uplinks=sent / (up * ended) if ended else 0.0,
            told=self.told,
            said=self.said,
            aside=list(self.aside),
            events=self.clock.events,
        )


def _share(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def simulate(scenario: Scenario) -> Report:
    """Run a scenario."""
    # millions of small objects live at once and none of them in a cycle that ends before the run
    collected = gc.isenabled()
    gc.disable()
    try:
        return Swarm(scenario).run()
    finally:
        if collected:
            gc.enable()
