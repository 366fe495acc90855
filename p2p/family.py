"""Who is whose parent: places are filled, emptied and drawn anew, and the child is told at once."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from . import assignment, messages
from .evaluator import Evaluator, Limits
from .outbox import Outbox
from .resource import Host, Peer, PeerState, Task
from .sources import Sources

USELESS_FOR = 5.0
"""Seconds for which a useless parent is not given to the same child again."""
YOUNG_HOLDS = 8
"""Pieces; who holds more has made use of its parents."""
SCARCE = 8
"""Where more than one in so many pieces is to leave the seeds again, these are nobody's parents."""


class Family:
    """Parents and children of all tasks."""

    def __init__(
        self,
        limits: Limits,
        evaluator: Evaluator,
        random: Random,
        sources: Sources,
        free: Callable[[Task], int],
        outbox: Outbox,
    ) -> None:
        self._limits = limits
        self._evaluator = evaluator
        self._random = random
        self._sources = sources
        self._free = free
        """Returns the pieces of a task that are still to leave the source."""
        self._outbox = outbox

    def join(self, peer: Peer, now: float) -> None:
        """Give a newcomer parents, and let those look at it who are short of some."""
        task = peer.task
        if peer.host.kind != "seed":
            self.fill(peer, now)
            task.young[peer] = len(task.peers)
        for other in list(task.short)[: self._limits.filter_parents]:
            self.fill(other, now)

    def fill(self, peer: Peer, now: float, changed: bool = False) -> None:
        """Fill the empty places among a peer's parents; tell it when something is other."""
        task, limits = peer.task, self._limits
        if peer.state in (PeerState.FINISHED, PeerState.LEFT):
            return
        if len(peer.parents) < limits.candidate_parents:
            seeds = self._open_seeds(task, now)
            found = [
                host
                for host in assignment.candidates(peer, seeds, limits, self._random)
                if max(peer.useless.get(host.id, now), peer.failed.get(host.id, now)) <= now
            ]
            changed |= assignment.fill(peer, found, self._evaluator, limits, task.by_host)
        if len(peer.parents) < limits.candidate_parents:
            task.short[peer] = None
        else:
            task.short.pop(peer, None)
        if changed:
            peer.move("start")
            parents = [host.parent() for host in peer.parents.values()]
            self._outbox.say(peer.host, messages.Parents(peer.handle, parents))

    def reject(self, peer: Peer, host: bytes, until: dict[bytes, float], now: float) -> bool:
        """Keep a host from a peer for a while; return whether it was a parent."""
        if len(until) > 2 * self._limits.filter_parents:
            for old in [each for each, end in until.items() if end <= now]:
                del until[old]
        until[host] = now + USELESS_FOR
        return assignment.remove(peer, host)

    def bereave(self, task: Task, host: Host, now: float) -> list[Peer]:
        """Take a host from all its children in a task, and return them."""
        children = assignment.children(task, host.id) if host.children else []
        for child in children:
            assignment.remove(child, host.id)
            self.fill(child, now, changed=True)
        return children

    def leave(self, peer: Peer, now: float) -> None:
        """Take a peer out: from its parents, and from its children."""
        peer.task.short.pop(peer, None)
        peer.task.young.pop(peer, None)
        self.finish(peer)
        self.bereave(peer.task, peer.host, now)

    def finish(self, peer: Peer) -> None:
        """Take all its parents from a peer: it needs none."""
        peer.task.short.pop(peer, None)
        for parent in list(peer.parents):
            assignment.remove(peer, parent)

    def tend(self, task: Task, now: float) -> None:
        """See to who has empty places, or came when few were there."""
        if task.young:
            self._mix(task, now)
        if task.seeded and self._free(task).bit_count() * SCARCE > task.full.bit_length():
            self._close_seeds(task, now)
        for peer in list(task.short)[: self._limits.filter_parents]:
            task.short.pop(peer)
            self.fill(peer, now)

    def _mix(self, task: Task, now: float) -> None:
        """Draw parents anew for who came when few were there: else the first would be a clique."""
        young, task.young = task.young, {}
        for peer, among in young.items():
            if len(task.peers) < 2 * among or peer.held.bit_count() > YOUNG_HOLDS:
                continue
            for parent in list(peer.parents):
                assignment.remove(peer, parent)
            task.young[peer] = len(task.peers)
        for peer in task.young:
            self.fill(peer, now, changed=True)

    def _open_seeds(self, task: Task, now: float) -> list[Host]:
        """Return the seeds that may be parents: when all pieces have left them once."""
        if not self._sources.seeds or self._free(task):
            return []
        task.seeded = True
        return [self._sources.seeds[each] for each in self._sources.of(task, now)]

    def _close_seeds(self, task: Task, now: float) -> None:
        """Have seeds as nobody's parents: a holder of much is gone, or never was one."""
        task.seeded = False
        for peer in list(task.peers):
            seeds = [host.id for host in peer.parents.values() if host.kind == "seed"]
            for seed in seeds:
                assignment.remove(peer, seed)
            if seeds:
                self.fill(peer, now, changed=True)
