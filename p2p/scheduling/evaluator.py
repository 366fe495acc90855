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


Rate = Callable[[Host, Peer | None], float]
"""Returns a value of 0 to 1 for a host, and its part in the task if it takes part."""

Feature = Callable[[Peer, Limits], Rate | None]
"""Returns how hosts are rated for a child; None: all are 0. There are forty of them per child."""


def _finished(child: Peer, limits: Limits) -> Rate:
    pieces = max(1, child.task.description.pieces)

    def rate(host: Host, part: Peer | None) -> float:
        return _of_none(host) if part is None else part.held.bit_count() / pieces

    return rate


def _useful(child: Peer, limits: Limits) -> Rate:
    missing = child.missing
    count = max(1, missing.bit_count())

    def rate(host: Host, part: Peer | None) -> float:
        return _of_none(host) if part is None else (part.held & missing).bit_count() / count

    return rate


def _of_none(host: Host) -> float:
    """Rate a host that takes no part: a seed can get everything."""
    return 1.0 if host.kind == "seed" else 0.0


def _success(child: Peer, limits: Limits) -> Rate:
    def rate(host: Host, part: Peer | None) -> float:
        total = host.served + host.failed
        return host.served / total if total else 1.0

    return rate


def _slots(child: Peer, limits: Limits) -> Rate:
    return lambda host, part: 1 - host.children / limits.load(host)


def _idle(child: Peer, limits: Limits) -> Rate:
    return lambda host, part: 1 / (1 + host.children)


def _seed(child: Peer, limits: Limits) -> Rate:
    return lambda host, part: 1.0 if host.kind == "seed" else 0.5


def _idc(child: Peer, limits: Limits) -> Rate | None:
    here = child.host.announced
    if here is None or not here.idc:
        return None
    idc = here.idc.lower()

    def rate(host: Host, part: Peer | None) -> float:
        there = host.announced
        return 1.0 if there and there.idc.lower() == idc else 0.0

    return rate


def _location(child: Peer, limits: Limits) -> Rate | None:
    here = child.host.announced
    if here is None or not here.location:
        return None
    own = here.location.lower().split("|")

    def rate(host: Host, part: Peer | None) -> float:
        there = host.announced.location.lower().split("|") if host.announced else []
        if there == own:
            return 1.0
        shared = 0
        for mine, other in zip(own, there, strict=False):
            if mine != other:
                break
            shared += 1
        return min(shared, LOCATION_PARTS) / LOCATION_PARTS

    return rate


def _rate(child: Peer, limits: Limits) -> Rate:
    """Half at 100 MB/s; a host that nobody has measured counts as such a one."""

    def rate(host: Host, part: Peer | None) -> float:
        measured = host.rate or 1e8
        return measured / (measured + 1e8)

    return rate


@dataclass(frozen=True, slots=True)
class Evaluator:
    """A weighted sum of features."""

    name: str
    weights: tuple[tuple[Feature, float], ...]

    def scores(self, child: Peer, limits: Limits) -> Rate:
        """Return what says how good a host would be as a parent of *child*; higher is better."""
        rated = [(feature(child, limits), weight) for feature, weight in self.weights]
        terms = [(rate, weight) for rate, weight in rated if rate is not None]

        def score(host: Host, part: Peer | None) -> float:
            total = 0.0
            for rate, weight in terms:
                total += weight * rate(host, part)
            return total

        return score


DEFAULT = Evaluator(
    "default",
    (
        (_idle, 0.55),
        (_useful, 0.05),
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
