"""Who takes what from the source while there is no scheduler.

A few of the hosts that take all of a task, or of those that read it where nobody takes all, are
told beforehand which pieces fall to them then, by their numbers, and which seed they are to be had
from. What one of them has got goes on from child to child as ever. Without them the source would
stand idle, or be asked by everybody for the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from .assignment import QUIET
from .family import Family
from .resource import Host, Peer, PeerState, Site, Stand, Task
from .sources import Sources

DEPUTIES = 8
"""Of a task, or of a site of it that keeps to itself; `grants.WINDOW_FIRST`."""
LOOKED_AT = 64


class Deputies:
    """Sees to it that there are some; one for all tasks of a scheduler."""

    def __init__(self, sources: Sources, family: Family) -> None:
        self._sources = sources
        self._family = family

    def tend(self, task: Task, now: float) -> None:
        """Take others for those who left or have all, and tell whoever is to do another part."""
        if task.settled > now:
            return
        full: set[Site | None] = set()
        for peer in list(islice(task.rotation or task.idle, LOOKED_AT)):
            group = _group(peer)
            able = _reads(peer, now) and peer.shares and not (peer.stand and peer.stand.turns)
            if able and group not in full and not self._appoint(task, group, peer, now):
                full.add(group)
        seeds = [self._sources.seeds[each] for each in sorted(self._sources.of(task, now))]
        for group in list(task.deputies):
            self._instruct(task, group, seeds)
        for peer in islice(task.idle, LOOKED_AT if seeds else 0):
            if peer.stand is None:  # no deputy, but it shall know whom to ask in the end
                peer.stand = Stand(seeds[0], 0, 0)
                self._family.tell(peer)

    def _appoint(self, task: Task, group: Site | None, peer: Peer, now: float) -> bool:
        """Make a peer a deputy; return whether one was lacking."""
        peers = task.deputies.setdefault(group, [])
        place = next(_vacant(peers, group, now), len(peers))
        if place >= DEPUTIES:
            return False
        for old in peers[place : place + 1]:
            old.stand = None
            if old.missing and old.state is not PeerState.LEFT:
                self._family.tell(old)
        peers[place : place + 1] = [peer]
        return True

    def _instruct(self, task: Task, group: Site | None, seeds: list[Host]) -> None:
        """Tell deputies what they do not know."""
        peers = task.deputies[group] = [
            peer for peer in task.deputies[group] if peer.state is not PeerState.LEFT
        ]
        for turn, peer in enumerate(peers):
            source = seeds[turn % len(seeds)] if seeds else None
            stand = Stand(source, turn, len(peers))
            if peer.stand != stand and peer.missing:
                peer.stand = stand
                self._family.tell(peer)
        if not peers:
            del task.deputies[group]


def _group(peer: Peer) -> Site | None:
    return peer.site if peer.site.closed else None


def _reads(peer: Peer, now: float) -> bool:
    """Whether a peer gets anything now."""
    return peer.bulk or now - peer.heard < QUIET


def _vacant(peers: list[Peer], group: Site | None, now: float) -> Iterator[int]:
    """Yield the places of those who cannot be deputies any more, or have nothing left to do."""
    for place, peer in enumerate(peers):
        gone = peer.state is PeerState.LEFT or not peer.shares or _group(peer) is not group
        if gone or not peer.missing or not _reads(peer, now):
            yield place
