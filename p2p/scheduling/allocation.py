"""Who gets which grant: wants before prefetch before bulk, rising pieces, one copy at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from p2p import runs

from .resource import Peer, Site, Task
from .sources import Sources

OPEN_PER_HOST = 2
ALONE_BYTES = 16 << 20
"""Open at once for a host that has a task for itself: nobody else is kept from anything."""
ALONE_FIRST = 4
"""Open at first then; twice as many as are held are allowed later."""

Given = dict[tuple[Peer, bytes | None], int]
"""What was granted: by peer and source, the pieces."""


@dataclass(slots=True)
class Allocation:
    """Gives grants; one for all tasks of a scheduler."""

    sources: Sources
    orphan: Callable[[Peer, int, float], bool]
    """Says whether still nobody holds a peer's orphan whom it can be sent to."""
    given: Given = field(default_factory=dict)
    """Since it was last looked at; the scheduler takes it and tells the hosts."""

    def serve(self, peer: Peer, now: float) -> None:
        """Grant a peer what it wants, as far as it may take more."""
        task = peer.task
        task.blocked.pop(peer, None)
        if not peer.wanted or task.settled > now:
            return
        alone = self._alone(task, peer)
        seeds = self.sources.of(task, now)
        if peer.returned:
            seeds = tuple(seed for seed in seeds if peer.returned.get(seed, now) <= now)
        unheld = self.free(task)
        free = unheld | peer.orphans & ~task.grants.bits
        while (peer.wanted & free) and self._may(peer, alone):
            urgent = peer.urgent & free
            piece = runs.first(urgent or peer.wanted & free)
            if not (unheld >> piece & 1 or self.orphan(peer, piece, now)):
                free &= ~(1 << piece)
                continue
            source = self.sources.owner(task, seeds, piece)
            if not urgent and not alone and not task.grants.window(source).room:
                task.blocked[peer] = None
                return
            self._give(peer, piece, source, now)
            free &= ~(1 << piece)

    def allot(self, task: Task, now: float) -> None:
        """Give what windows have room for, to who waits for it and to bulk peers in turn."""
        if task.settled > now:
            return
        for peer in list(task.blocked):
            self.serve(peer, now)
            if peer in task.blocked:
                break
        if not task.rotation:
            return
        free = self.free(task)
        while free and task.rotation:
            seeds = self.sources.of(task, now)
            given = 0
            for source, shard in self.sources.shard(task, seeds, free).items():
                given |= self._round(task, source, shard, now)
            if not given:
                return
            free &= ~given

    def free(self, task: Task) -> int:
        """Return the pieces that nobody holds and nobody has a grant for."""
        return task.full & ~(task.counted() | task.grants.bits)

    def taken(self) -> Given:
        """Return what was given since the last call."""
        given, self.given = self.given, {}
        return given

    def _round(self, task: Task, source: bytes | None, free: int, now: float) -> int:
        """Give pieces of one source; return them."""
        window = task.grants.window(source)
        given = 0
        while free:
            alone = len(task.rotation) == 1 and self._alone(task, task.rotation[0])
            if not (alone or window.room):
                break
            peer = self._next(task, source, free, now)
            if peer is None:
                break
            piece = runs.first(free & ~peer.held)
            self._give(peer, piece, source, now)
            given |= 1 << piece
            free &= ~(1 << piece)
        return given

    def _next(self, task: Task, source: bytes | None, free: int, now: float) -> Peer | None:
        """Return the next bulk peer that may take one of *free*.

        Those of the source's own site come first, then those that share and are surely there.
        """
        alone = len(task.rotation) == 1 and self._alone(task, task.rotation[0])
        home = self._home(task, source)
        turns = [(True, None), (False, None)]
        for sharing, site in [(True, home), *turns] if home else turns:
            for _ in range(len(task.rotation)):
                peer = task.rotation[0]
                task.rotation.rotate(-1)
                if site not in (None, peer.site) or _first(peer) is not sharing:
                    continue
                if source is not None and peer.returned.get(source, now) > now:
                    continue
                if free & ~peer.held and self._may(peer, alone):
                    return peer
        return None

    def _home(self, task: Task, source: bytes | None) -> Site | None:
        """Return the site of a seed, where it keeps to itself."""
        if source is None:
            return None
        site = task.sites.get(self.sources.seeds[source].idc)
        return site if site and site.closed else None

    def _give(self, peer: Peer, piece: int, source: bytes | None, now: float) -> None:
        peer.task.grants.give(piece, peer.host.id, source, now)
        if source is None:
            peer.granted |= 1 << piece
        self.given[peer, source] = self.given.get((peer, source), 0) | 1 << piece

    def _may(self, peer: Peer, alone: bool) -> bool:
        count = peer.task.grants.of(peer.host.id).bit_count()
        if alone:
            # others may come the next moment, and would have to get all of these from this one
            most = ALONE_FIRST + 2 * peer.held.bit_count()
            return count < max(OPEN_PER_HOST, min(most, ALONE_BYTES // peer.task.piece_size))
        return count < (OPEN_PER_HOST if peer.bulk else max(OPEN_PER_HOST, peer.task.handful))

    def _alone(self, task: Task, peer: Peer) -> bool:
        """Whether no other host but seeds takes part."""
        if len(task.peers) > 1 + len(self.sources.seeds):
            return False
        return all(each is peer or each.host.kind == "seed" for each in task.peers)


def _first(peer: Peer) -> bool:
    """Whether what a peer is granted will soon be a copy that others can have."""
    return peer.shares and peer.heard >= peer.task.doubt
