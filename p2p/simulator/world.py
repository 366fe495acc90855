"""What all virtual hosts share: time, the network between them, the origin, the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Protocol

from p2p.messages import Description

from .clock import Clock
from .links import Pipe, Upload
from .scenario import Scenario, Site

RECOVERS = 0.5
"""Seconds until TCP tries again after a partition is over."""
SEGMENT = 1448
"""Bytes."""


class Place(Protocol):
    """Where something is in the network."""

    index: int
    latency: float
    site: str
    dead: bool


class Shared:
    """The link of a site."""

    def __init__(self, site: Site) -> None:
        self.up = Pipe(site.up)
        self.down = Pipe(site.down)
        self.latency = site.latency
        self.received = 0
        """Bytes that came in over it."""


class World:
    """The network."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = Clock()
        self.random = Random(scenario.seed)
        self.sites = {site.name: Shared(site) for site in scenario.site}
        self.cut: frozenset[int] = frozenset()
        """Indexes of the hosts on the far side of a partition."""
        latencies = {scenario.seeds.latency, *(group.latency for group in scenario.group)}
        self._alike = len(latencies) == 1 and not self.sites
        """All are equally far from each other."""
        self.healed = 0.0
        """When it will be over."""
        self.count = scenario.pieces
        self.description = Description("blob", "simulated", scenario.size, scenario.pieces)
        self._last = scenario.size - (self.count - 1) * scenario.piece
        self.wasted = 0
        self.needed = 0

    def size(self, piece: int) -> int:
        """Return the bytes of a piece."""
        return self._last if piece == self.count - 1 else self.scenario.piece

    def latency(self, one: Place, other: Place) -> float:
        """Return the seconds from one host to another."""
        latency = one.latency + other.latency
        if one.site != other.site:
            for name in (one.site, other.site):
                if name:
                    latency += self.sites[name].latency
        return latency

    def send(
        self, one: Place, other: Place, what: Callable[[Any], None], fact: object, more: float = 0
    ) -> None:
        """Let *what* happen at the other host when word of it has come there."""
        self.clock.at(self._there(one, other) + more, what, fact)

    def cast(
        self, one: Place, others: Iterable[Place], what: Callable[[Any], None], fact: object
    ) -> None:
        """Let *what* happen with *fact* and those whom word of it comes to at the same time."""
        near = self.clock.now + one.latency
        if self._alike and not self.cut:
            there = list(others)
            if there:
                self.clock.at(near + one.latency, what, (fact, there))
            return
        times: dict[float, list[Place]] = {}
        plain = not (self.sites or self.cut)
        for other in others:
            when = near + other.latency if plain else self._there(one, other)
            if when in times:
                times[when].append(other)
            else:
                times[when] = [other]
        for when, there in times.items():
            self.clock.at(when, what, (fact, there))

    def through(self, one: Place, other: Place, upload: Upload, down: Pipe) -> float:
        """Return when an upload that has left one host is whole at the other."""
        latency = self.latency(one, other)
        began, arrives = upload.began + latency, self.clock.now + latency
        if one.site != other.site:
            arrives = self._across(one, other, began, arrives, upload.size)
        arrives = down.passed(began, arrives, upload.size)
        if self.cut and (one.index in self.cut) != (other.index in self.cut):
            arrives = max(arrives, self.healed + RECOVERS)
        return arrives

    def _across(self, one: Place, other: Place, began: float, arrives: float, size: int) -> float:
        """Pass the links of the sites between two hosts."""
        if one.site:
            site = self.sites[one.site]
            arrives = site.up.passed(began, arrives, size)
        if other.site:
            site = self.sites[other.site]
            site.received += size
            arrives = site.down.passed(began, arrives, size)
        return arrives

    def _there(self, one: Place, other: Place) -> float:
        """Return when what is sent now is there."""
        when = self.clock.now + one.latency + other.latency
        if one.site != other.site:
            when = self.clock.now + self.latency(one, other)
        if self.cut and (one.index in self.cut) != (other.index in self.cut):
            when = max(when, self.healed + RECOVERS)
        return when
