"""What crosses from site to site: each piece once, by one host of each site that lacks it.

Hosts that announce the same IDC are a site of a task. Where enough of them take part their parents
are of the site alone, and what first appears elsewhere comes by a grant like that of a seed: its
source is a host elsewhere that holds the piece, and nobody else of the site is given it as long as
the grant lasts. Who fetches goes by who holds, so that the same two hosts meet again and again and
their session is there already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from p2p import runs

from .resource import Host, Peer, Site, Task

OPEN_PER_HOST = 4
"""Grants of this kind that a host has at once."""
TRIED = 8
"""Hosts of a site that are looked at for one that may fetch a piece."""

Holder = Callable[[Peer, int, float], Peer | None]
"""Returns a holder of a piece that is of use to a peer."""


@dataclass(slots=True)
class Crossing:
    """Gives grants across sites; one for all tasks of a scheduler."""

    holder: Holder
    least: int
    """Hosts that take all, from which on a site keeps to itself."""
    given: dict[tuple[Peer, Host], int] = field(default_factory=dict)
    """Since it was last looked at: by peer and source, the pieces."""

    def count(self, task: Task) -> list[Site]:
        """See which sites of a task keep to themselves; return those that do so from now on."""
        fresh = []
        for site in task.sites.values():
            closed = len(task.sites) > 1 and site.fetchers >= self.least
            if closed and not site.closed:
                fresh.append(site)
            site.closed = closed
        return fresh

    def gained(self, holder: Peer, new: int, now: float) -> None:
        """Let sites that lack what a peer has got fetch it."""
        task = holder.task
        if len(task.sites) < 2 or not holder.shares:
            return
        for site in task.sites.values():
            if site.closed and site is not holder.site:
                for piece in runs.numbers(new & ~(site.held | site.grants.bits)):
                    self._fetch(site, holder, piece, now)

    def tend(self, task: Task, now: float) -> bool:
        """See to what ends by time; return whether a site still lacks what others have."""
        lacking = False
        for site in task.sites.values() if len(task.sites) > 1 else ():
            site.grants.expired(now)
            self.allot(task, site, now)
            lacking |= site.closed and bool(task.counted() & ~site.held)
        return lacking

    def allot(self, task: Task, site: Site, now: float) -> None:
        """Let a site fetch what it lacks and others have, as far as its window has room."""
        if not site.closed:
            return
        lacks = task.counted() & ~(site.held | site.grants.bits)
        any_peer = next(iter(site.peers))
        while lacks and site.grants.window(None).room:
            piece = runs.first(lacks)
            lacks &= lacks - 1
            holder = self.holder(any_peer, piece, now)
            if holder is not None and holder.site is not site:
                self._fetch(site, holder, piece, now)

    def lost(self, task: Task, host: Host) -> None:
        """Drop the grants that a lost host had, or was the source of."""
        for site in task.sites.values():
            site.grants.lost(host.id)

    def taken(self) -> dict[tuple[Peer, Host], int]:
        """Return what was given since the last call."""
        given, self.given = self.given, {}
        return given

    def _fetch(self, site: Site, holder: Peer, piece: int, now: float) -> None:
        if not site.grants.window(None).room:
            return
        peer = self._partner(site, holder, piece, now)
        if peer is None:
            return
        site.grants.give(piece, peer.host.id, holder.host.id, now)
        key = peer, holder.host
        self.given[key] = self.given.get(key, 0) | 1 << piece

    def _partner(self, site: Site, holder: Peer, piece: int, now: float) -> Peer | None:
        """Return the peer of a site that fetches what a holder elsewhere has."""
        peers = list(site.peers)
        for step in range(min(TRIED, len(peers))):
            peer = peers[(holder.place + step) % len(peers)]
            if (
                peer.bulk
                and peer.shares
                and not peer.held >> piece & 1
                and site.grants.of(peer.host.id).bit_count() < OPEN_PER_HOST
                and peer.failed.get(holder.host.id, now) <= now
            ):
                return peer
        return None
