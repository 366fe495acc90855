"""A scenario: what is simulated.

Decoded from TOML, whose tables and keys are the structs and fields here: ``[[group]]`` of hosts,
``[[site]]``, ``[origin]``, ``[seeds]``, ``[[fault]]``, ``[policy]``. Sizes, rates and times may
have units (`units`).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from chunkstore.errors import Malformed

from .units import plain

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]

GIGABIT = 125e6
"""Bytes per second."""


class _Table(Struct, frozen=True, forbid_unknown_fields=True):
    """One table of the file."""


class Group(_Table, frozen=True):
    """Hosts that are alike."""

    hosts: Annotated[int, Meta(ge=1, le=100_000)]
    up: Positive = GIGABIT
    """Bytes per second, as all rates."""
    down: Positive = GIGABIT
    latency: NotNegative = 0.0005
    """Seconds from a host to the middle of the network; twice that to another host."""
    loss: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Share of packets."""
    site: str = ""
    """Name of a shared link that all traffic to and from elsewhere passes; also the IDC."""
    uploads: bool = True
    arrive: NotNegative = 0.0
    """Seconds at which the first comes."""
    over: NotNegative = 0.0
    """Seconds over which the rest come, evenly."""
    held: Share = 0.0
    """Share of the pieces that each has from before, at random."""
    lazy: Share = 0.0
    """Above 0: reads that share of the pieces, in order, instead of all."""
    alike: bool = False
    """Lazy: all read the same pieces in one order, here and there, as hosts that start one program
    do."""
    ahead: Annotated[int, Meta(ge=1)] = 4
    """Lazy: readers at once."""
    together: Annotated[int, Meta(ge=1)] = 1
    """Lazy: adjacent pieces that a reader waits for at once."""
    think: NotNegative = 0.0
    """Lazy: seconds until a reader goes on, on average."""
    listed: Share = 0.0
    """Lazy: share of what is read, the first of it, that is fetched ahead from the beginning."""
    astray: Share = 0.0
    """Lazy: share of the reads that a host makes in the other order than most."""


class Site(_Table, frozen=True):
    """A link that the hosts of a site share."""

    name: str
    up: Positive
    down: Positive
    latency: NotNegative = 0.0
    """Seconds more, each way."""


class Origin(_Table, frozen=True):
    """Where the file comes from."""

    rate: Positive = GIGABIT
    latency: NotNegative = 0.005


class Seeds(_Table, frozen=True):
    """The seed peers."""

    hosts: Annotated[int, Meta(ge=0, le=1000)] = 1
    up: Positive = GIGABIT
    down: Positive = GIGABIT
    latency: NotNegative = 0.0005
    warm: bool = False
    """They hold the file already."""


class Fault(_Table, frozen=True):
    """Something that goes wrong."""

    kind: Literal[
        "death",
        "stall",
        "slow",
        "corrupt",
        "lie",
        "partition",
        "scheduler",
        "seed",
        "origin",
    ]
    at: NotNegative
    hosts: Annotated[int, Meta(ge=0)] = 1
    """How many: of the hosts that are there, at random."""
    lasts: NotNegative = 0.0
    """Seconds; 0: for good."""


class Policy(_Table, frozen=True):
    """What may be varied to compare; the defaults are what the services do."""

    evaluator: Literal["default", "v2.1.0"] = "default"
    candidate_parents: Annotated[int, Meta(ge=1, le=20)] = 4
    filter_parents: Annotated[int, Meta(ge=1, le=1000)] = 40
    peer_load: Annotated[int, Meta(ge=1)] = 50
    uploads: Annotated[int, Meta(ge=1)] = 8
    """In service at once at a peer."""
    seed_uploads: Annotated[int, Meta(ge=1)] = 8
    """The same at a seed."""
    reads: Annotated[int, Meta(ge=1)] = 4
    """Pieces that a seed reads from the origin at once, in order."""
    total: Annotated[int, Meta(ge=1)] = 5
    """Requests open at a child at first."""
    coalesce: Positive = 0.01
    """Seconds between two HAVE of a parent."""


class Scenario(_Table, frozen=True):
    """A simulation."""

    group: Annotated[list[Group], Meta(min_length=1)]
    size: Annotated[int, Meta(gt=0)] = 1 << 30
    piece: Annotated[int, Meta(gt=0)] = 1 << 20
    seed: int = 1
    """Of all chance."""
    ends: Positive = 3600.0
    """Virtual seconds after which it is given up."""
    site: list[Site] = []
    origin: Origin = Origin()
    seeds: Seeds = Seeds()
    fault: list[Fault] = []
    policy: Policy = Policy()

    @classmethod
    def decode(cls, table: dict[str, object]) -> Scenario:
        """Return the scenario of a TOML document; raise Malformed where it is none."""
        try:
            scenario = msgspec.convert(plain(table), cls)
        except msgspec.ValidationError as error:
            raise Malformed(f"scenario: {error}") from error
        names = {site.name for site in scenario.site}
        for group in scenario.group:
            if group.site and group.site not in names:
                raise Malformed("scenario: no such site", group.site)
        return scenario

    @property
    def pieces(self) -> int:
        """How many."""
        return -(-self.size // self.piece)

    @property
    def hosts(self) -> int:
        """How many, seeds not counted."""
        return sum(group.hosts for group in self.group)

    def bound(self) -> float:
        """Return the seconds that no swarm can go below once everybody is there."""
        up = sum(group.hosts * group.up for group in self.group if group.uploads)
        down = min(group.down for group in self.group)
        source = self.origin.rate
        if self.seeds.hosts:
            source = self.seeds.hosts * self.seeds.up
        slowest = max(self.size / source, self.size / down)
        if not (self.seeds.hosts and self.seeds.warm):
            slowest = max(slowest, self.size / self.origin.rate)
        return max(slowest, self.hosts * self.size / (source + up))
