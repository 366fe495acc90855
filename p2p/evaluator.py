"""How good a host would be as a parent: a table of weights over what is known of it.

`DEFAULT` is what simulation decided (tests/bench/scenarios). `V2_1` is the formula that Dragonfly's
scheduler 2.1.0 uses, for comparison and for those who want to keep it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .resource import Host, HostState, Peer

LOCATION_PARTS = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the seed's console, with its defaults; enforced here and by the uploader."""

    candidate_parents: int = 4
    filter_parents: int = 40
    peer_load: int = 50
    """Children of a peer, all tasks together."""
    seed_load: int = 300

    def load(self, host: Host) -> int:
        """Return how many children a host may have."""
        return self.seed_load if host.kind == "seed" else self.peer_load


Feature = Callable[[Host, Peer | None, Peer, Limits], float]
"""A value of 0 to 1 for a host, its part in the task if it takes part, the child, the limits."""


def _finished(host: Host, part: Peer | None, child: Peer, limits: Limits) -> float:
    if part is None:
        return 1.0 if host.kind == "seed" else 0.0
    return part.held.bit_count() / max(1, child.task.description.pieces)


def _useful(host: Host, part: Peer | None, child: Peer, limits: Limits) -> float:
    missing = child.missing
    if part is None:
        return 1.0 if host.kind == "seed" else 0.0
    return (part.held & missing).bit_count() / max(1, missing.bit_count())


def _success(host: Host, part: Peer | None, child: Peer, limits: Limits) -> float:
    total = host.served + host.failed
    return host.served / total if total else 1.0


def _slots(host: Host, part: Peer | None, child: Peer, limits: Limits) -> float:
    return 1 - host.children / limits.load(host)


def _idle(host: Host, part: Peer | None, child: Peer, limits: Limits) -> float:
    return 1 / (1 + host.children)


def _seed(host: Host, part: Peer | None, child: Peer, limits: Limits) -> float:
    return 1.0 if host.kind == "seed" else 0.5


def _idc(host: Host, part: Peer | None, child: Peer, limits: Limits) -> float:
    return 1.0 if _same(host, child.host) else 0.0


def _same(host: Host, other: Host) -> bool:
    here, there = host.announced, other.announced
    return bool(here and there and here.idc and here.idc.lower() == there.idc.lower())


def _location(host: Host, part: Peer | None, child: Peer, limits: Limits) -> float:
    here, there = host.announced, child.host.announced
    if not (here and there and here.location and there.location):
        return 0.0
    if here.location.lower() == there.location.lower():
        return 1.0
    shared = 0
    pairs = zip(here.location.lower().split("|"), there.location.lower().split("|"), strict=False)
    for mine, other in pairs:
        if mine != other:
            break
        shared += 1
    return min(shared, LOCATION_PARTS) / LOCATION_PARTS


def _rate(host: Host, part: Peer | None, child: Peer, limits: Limits) -> float:
    """Half at 100 MB/s; a host that nobody has measured counts as such a one."""
    rate = host.rate or 1e8
    return rate / (rate + 1e8)


@dataclass(frozen=True, slots=True)
class Evaluator:
    """A weighted sum of features."""

    name: str
    weights: tuple[tuple[Feature, float], ...]

    def score(self, host: Host, part: Peer | None, child: Peer, limits: Limits) -> float:
        """Return how good *host* would be as a parent of *child*; higher is better."""
        return sum(weight * feature(host, part, child, limits) for feature, weight in self.weights)


DEFAULT = Evaluator(
    "default",
    (
        (_idle, 0.45),
        (_useful, 0.15),
        (_idc, 0.12),
        (_success, 0.1),
        (_location, 0.08),
        (_rate, 0.08),
        (_seed, 0.02),
    ),
)

V2_1 = Evaluator(
    "v2.1.0",
    (
        (_finished, 0.2),
        (_success, 0.2),
        (_slots, 0.15),
        (_seed, 0.15),
        (_idc, 0.15),
        (_location, 0.15),
    ),
)

EVALUATORS = {each.name: each for each in (DEFAULT, V2_1)}


def fit(host: Host, child: Peer, limits: Limits) -> bool:
    """Return whether a host may be given to a child at all."""
    return (
        host.state is HostState.ACTIVE
        and host.uploads
        and host is not child.host
        and host.id not in child.parents
        and host.children < limits.load(host)
    )
