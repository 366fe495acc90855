"""What goes wrong in a simulation."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

from .node import Node
from .scenario import Fault
from .seed import Seed
from .uploader import Uploader
from .world import World

SLOW = 0.01
"""Share of its rate that is left to a slow host."""


class Stage(Protocol):
    """Where it happens."""

    world: World
    nodes: list[Node]
    seeds: list[Seed]

    def gone(self, node: Uploader) -> None:
        """Let the scheduler see that a session ended."""

    def lose(self, node: Uploader) -> None:
        """Wait no longer for a host."""

    def start_scheduler(self, _: object = None) -> None:
        """Start one that knows nothing."""

    def stop_scheduler(self) -> None:
        """Let it die."""

    def cut_origin(self, rate: float) -> None:
        """Make the origin slower."""


class Faults:
    """Lets faults happen, and ends those that last."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._clock = stage.world.clock
        self._random = Random(stage.world.random.getrandbits(64))

    def happen(self, fault: Fault) -> None:
        """Let one happen."""
        stage = self._stage
        if fault.kind == "scheduler":
            stage.stop_scheduler()
            self._after(fault, stage.start_scheduler)
        elif fault.kind == "origin":
            stage.cut_origin(0)
            rate = stage.world.scenario.origin.rate
            self._after(fault, lambda _: stage.cut_origin(rate))
        elif fault.kind == "partition":
            self._partition(fault)
        elif fault.kind == "seed":
            for seed in stage.seeds[: fault.hosts]:
                self._kill(seed)
        else:
            for node in self._some(fault.hosts):
                self._befall(node, fault)

    def _befall(self, node: Node, fault: Fault) -> None:
        if fault.kind == "death":
            self._kill(node)
        elif fault.kind == "stall":
            node.stall()
            if fault.lasts:
                self._after(fault, lambda _: node.resume())
            else:
                self._stage.lose(node)
        elif fault.kind == "slow":
            node.uplink.set_rate(node.group.up * SLOW)
            self._after(fault, lambda _: node.uplink.set_rate(node.group.up))
        elif fault.kind == "corrupt":
            node.corrupt = True
        elif fault.kind == "lie":
            node.lie()

    def _kill(self, node: Uploader) -> None:
        node.die()
        self._stage.gone(node)

    def _partition(self, fault: Fault) -> None:
        world = self._stage.world
        world.cut = frozenset(node.index for node in self._some(fault.hosts))
        world.healed = self._clock.now + fault.lasts

        def heal(_: object) -> None:
            world.cut = frozenset()

        self._after(fault, heal)

    def _some(self, count: int) -> list[Node]:
        there = [node for node in self._stage.nodes if node.born > 0 and not node.dead]
        return self._random.sample(there, min(count, len(there)))

    def _after(self, fault: Fault, what: Callable[[object], None]) -> None:
        if fault.lasts:
            self._clock.at(self._clock.now + fault.lasts, what)
