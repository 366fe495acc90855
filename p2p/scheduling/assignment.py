"""Which parents a peer gets: a random sample, filtered, and the best of it.

Parents may be later joiners and may be each other's: pieces differ, so nothing stalls in a circle.
What counts most is that everybody has about as many children as parents (`evaluator.DEFAULT`).
Where several IDCs have too few hosts to keep to themselves (`crossing`), one place of the four goes
to a host elsewhere, so that no site is an island, and the others to the child's own where they can.
"""

from __future__ import annotations

from random import Random

from .evaluator import Evaluator, Limits, fit
from .resource import Host, Peer, Task

MUCH = 8
"""Pieces; a host that has fewer is as good as one that just came."""
QUIET = 5.0
"""Seconds without a word after which a host that takes only what is read does not start anything
now."""
BUSY = 8
"""Children; a host that has as many is given no more for what it has."""
ELSEWHERE = 1
"""Places for hosts of other IDCs."""


def candidates(
    peer: Peer, among: list[Peer], seeds: list[Host], limits: Limits, random: Random
) -> list[Host]:
    """Return hosts that may be new parents of a peer, out of a random sample."""
    count = limits.filter_parents
    sample = among if len(among) <= count else random.sample(among, count)
    hosts = [other.host for other in sample if other.host.kind != "seed"]
    return [host for host in hosts + seeds if fit(host, peer, limits)]


def apt(peer: Peer, host: Host, parts: dict[bytes, Peer], now: float) -> bool:
    """Whether a host may be a parent of a peer that takes only what is read.

    One that reads the same at the same time keeps step with it (`convoy`): each would be told of
    all that the other gets, and ask it for what it has to send to others.
    """
    part = parts.get(host.id)
    if part is None or not gives(peer, host, parts):
        return False
    return part.bulk or not part.missing or now - part.heard >= QUIET


def fill(
    peer: Peer,
    found: list[Host],
    evaluator: Evaluator,
    limits: Limits,
    parts: dict[bytes, Peer],
) -> bool:
    """Give a peer the best of *found* for its empty places; return whether it got any."""
    empty = limits.candidate_parents - len(peer.parents)
    if empty <= 0 or not found:
        return False
    score = evaluator.scores(peer, limits)
    scored = sorted(found, key=lambda host: score(host, parts.get(host.id)), reverse=True)
    chosen = scored[:empty]
    _feed(peer, chosen, scored[empty:], parts)
    _mix(peer, chosen, scored[empty:])
    for host in chosen:
        add(peer, host)
    return True


def add(peer: Peer, host: Host) -> None:
    """Give a peer a parent."""
    peer.parents[host.id] = host
    host.children += 1


def remove(peer: Peer, host: bytes) -> bool:
    """Take a parent from a peer; return whether it was one."""
    parent = peer.parents.pop(host, None)
    if parent is None:
        return False
    parent.children -= 1
    return True


def _feed(peer: Peer, chosen: list[Host], rest: list[Host], parts: dict[bytes, Peer]) -> None:
    """Put a host that has much in the last place where all would have little that a peer lacks."""
    given = max(gives(peer, host, parts) for host in [*peer.parents.values(), *chosen])
    able = [host for host in rest if gives(peer, host, parts) > MUCH + 2 * given]
    if able:
        idlest = min(able, key=lambda host: host.children)
        if idlest.children < BUSY:
            chosen[-1] = idlest


def _mix(peer: Peer, chosen: list[Host], rest: list[Host]) -> None:
    """Put a host from elsewhere in the last place where all would be of one IDC."""
    idc = peer.host.idc
    everybody = [*peer.parents.values(), *chosen]
    if len(everybody) <= ELSEWHERE or any(host.idc != idc for host in everybody):
        return
    other = next((host for host in rest if host.idc != idc), None)
    if other is not None and chosen:
        chosen[-1] = other


def gives(peer: Peer, host: Host, parts: dict[bytes, Peer]) -> int:
    """Return how many pieces a host has that a peer lacks."""
    part = parts.get(host.id)
    return (part.held & peer.missing).bit_count() if part else 0


def swap(peer: Peer, host: Host, other: Host, parts: dict[bytes, Peer]) -> bool:
    """Give a peer one parent for another, unless that one has much more for it; return whether."""
    if gives(peer, host, parts) > MUCH + 2 * gives(peer, other, parts):
        return False
    remove(peer, host.id)
    add(peer, other)
    return True


def children(task: Task, host: bytes) -> list[Peer]:
    """Return the peers of a task that have a host as a parent."""
    return [peer for peer in task.peers if host in peer.parents]
