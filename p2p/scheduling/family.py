"""Who is whose parent: places are filled, emptied and drawn anew, and the child is told at once."""

from __future__ import annotations

from itertools import islice
from random import Random

from p2p import messages

from . import assignment
from .evaluator import Evaluator, Limits, fit
from .outbox import Outbox
from .resource import Host, Peer, PeerState, Site, Stand, Task
from .sources import Sources
from .supply import Supply

USELESS_FOR = 5.0
"""Seconds for which a useless parent is not given to the same child again."""
MIXED_AT = 1.25
"""Growth of a task after which parents are drawn anew."""
YOUNG_HOLDS = 8
"""Pieces; who holds more has made use of its parents."""
UNEVEN, EVENED = 2, 4
"""Children that one host has more than another, where one of them is given to that; hosts that may
get some at a time. Those whose first pieces came late are given up as parents in the first second,
and would have two children to the end where others have five, and half of the uploads."""
SPARE = 4
"""Parents for when the scheduler is gone."""
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
        supply: Supply,
        outbox: Outbox,
    ) -> None:
        self._limits = limits
        self._evaluator = evaluator
        self._random = random
        self._sources = sources
        self._supply = supply
        self._outbox = outbox

    def join(self, peer: Peer, now: float) -> None:
        """Give a newcomer parents, and let those look at it who are short of some."""
        task = peer.task
        for site in self._supply.crossing.count(task):
            self._gather(site, now)
        if peer.host.kind != "seed":
            back = bool(peer.had)
            if back and task.settled <= now:
                self._keep(peer, now)
            self.fill(peer, now, changed=back)
            peer.among = len(task.peers)
        for other in list(islice(task.short, self._limits.filter_parents)):
            self.fill(other, now)
        for other in list(islice(task.idle, self._limits.filter_parents)):
            if len(other.spare) < SPARE and self._acquaint(other, now):
                self.tell(other)

    def fill(self, peer: Peer, now: float, changed: bool = False) -> None:
        """Fill the empty places among a peer's parents; tell it when something is other."""
        task, limits = peer.task, self._limits
        if peer.had or peer.state in (PeerState.FINISHED, PeerState.LEFT):
            return
        if len(peer.parents) < limits.candidate_parents:
            among = task.peers
            seeds = self._open_seeds(task, now)
            if peer.site.closed:
                among = list(peer.site.peers)
                seeds = [seed for seed in seeds if seed.idc == peer.host.idc]
            found = [
                host
                for host in assignment.candidates(peer, among, seeds, limits, self._random)
                if self._bearable(host, peer, now)
                and (peer.bulk or assignment.apt(peer, host, task.by_host, now))
            ]
            changed |= assignment.fill(peer, found, self._evaluator, limits, task.by_host)
        task.short.pop(peer, None)
        task.idle.pop(peer, None)
        if not peer.bulk:
            task.idle[peer] = now
            changed |= self._acquaint(peer, now)
        elif len(peer.parents) < limits.candidate_parents:
            task.short[peer] = None
        if changed:
            self.tell(peer)

    def tell(self, peer: Peer) -> None:
        """Tell a peer its parents, and what to do when the scheduler is gone."""
        peer.move("start")
        parents = [host.parent() for host in peer.parents.values()]
        spare = [host.parent() for host in peer.spare if host.uploads]
        stand = peer.stand or Stand(None, 0, 0)
        source = stand.source.parent() if stand.source else None
        body = messages.Parents(peer.handle, parents, source, stand.turn, stand.turns, spare)
        self._outbox.say(peer.host, body)

    def _acquaint(self, peer: Peer, now: float) -> bool:
        """Choose the parents of a peer for when the scheduler is gone; return whether anew."""
        kept = [host for host in peer.spare if host.uploads]
        among = [each for each in peer.task.peers if each.site is peer.site or not peer.site.closed]
        found = assignment.candidates(peer, among, [], self._limits, self._random)
        fresh = [host for host in found if host not in kept and self._bearable(host, peer, now)]
        count = min(SPARE - len(kept), len(fresh))
        if count <= 0:
            return False
        peer.spare = (*kept, *self._random.sample(fresh, count))
        return True

    def adopt(self, task: Task, now: float) -> None:
        """Let those who came back keep the parents that came too, and fill the other places."""
        task.mixed = len(task.peers)
        back = [peer for peer in task.peers if peer.had]
        for peer in back:
            self._keep(peer, now)
        for peer in back:
            self.fill(peer, now, changed=True)

    def _keep(self, peer: Peer, now: float) -> None:
        """Give a peer that came back the parents that it had, as far as they are here."""
        task, limits = peer.task, self._limits
        parts = [task.by_host[each] for each in peer.had if each in task.by_host]
        peer.had, peer.among = (), len(task.peers)
        for part in parts:
            if len(peer.parents) >= limits.candidate_parents:
                break
            able = peer.bulk or assignment.apt(peer, part.host, task.by_host, now)
            if able and fit(part.host, peer, limits) and self._bearable(part.host, peer, now):
                assignment.add(peer, part.host)

    @staticmethod
    def _bearable(host: Host, peer: Peer, now: float) -> bool:
        """Whether a peer has not said lately that a host is of no use to it."""
        return max(peer.useless.get(host.id, now), peer.failed.get(host.id, now)) <= now

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
        self._supply.crossing.count(peer.task)
        self.finish(peer)
        self.bereave(peer.task, peer.host, now)

    def finish(self, peer: Peer) -> None:
        """Take all its parents from a peer: it needs none."""
        peer.task.short.pop(peer, None)
        peer.task.idle.pop(peer, None)
        for parent in list(peer.parents):
            assignment.remove(peer, parent)

    def show(self, task: Task, now: float) -> None:
        """Let those who read look at who has everything now."""
        for peer in list(islice(task.idle, self._limits.filter_parents)):
            if len(peer.parents) < self._limits.candidate_parents:
                self.fill(peer, now)

    def tend(self, task: Task, now: float) -> None:
        """See to who has empty places, or came when few were there."""
        if len(task.peers) >= MIXED_AT * task.mixed:
            self._mix(task, now)
        if task.seeded and self._supply.free(task).bit_count() * SCARCE > task.full.bit_length():
            self._close_seeds(task, now)
        for peer in list(islice(task.short, self._limits.filter_parents)):
            task.short.pop(peer)
            self.fill(peer, now)
        for peer, looked in list(islice(task.idle.items(), self._limits.filter_parents)):
            if now < looked + assignment.QUIET:
                break
            self.fill(peer, now)
        self._even_out(task, now)

    def _even_out(self, task: Task, now: float) -> None:
        """Give children of who has many to who has few: all uplinks are needed alike."""
        count = self._limits.filter_parents
        peers = task.peers if len(task.peers) <= count else self._random.sample(task.peers, count)
        idlest = sorted((each.host for each in peers if each.shares), key=_children)[:EVENED]
        for child in peers:
            parents = [host for host in child.parents.values() if host.kind != "seed"]
            busy = max(parents, key=_children, default=child.host)
            for idle in idlest if parents else ():
                if busy.children < idle.children + UNEVEN or busy.idc != idle.idc:
                    continue
                able = fit(idle, child, self._limits) and self._bearable(idle, child, now)
                if able and assignment.swap(child, busy, idle, task.by_host):
                    self.tell(child)
                    break

    def _gather(self, site: Site, now: float) -> None:
        """Take parents elsewhere from the hosts of a site that keeps to itself from now on."""
        for peer in site.peers:
            far = [host.id for host in peer.parents.values() if host.idc != peer.host.idc]
            for host in far:
                assignment.remove(peer, host)
            if far:
                self.fill(peer, now, changed=True)

    def _mix(self, task: Task, now: float) -> None:
        """Draw parents anew for those whose parents were drawn among fewer.

        The first would be a clique else, and later ones a chain in which each hangs on the last.
        """
        count = task.mixed = len(task.peers)
        drawn = []
        for peer in task.peers:
            if peer.host.kind != "seed" and count >= MIXED_AT * peer.among and peer.missing:
                peer.among = count
                drawn.append(peer)
                self._part(peer)
        for peer in drawn:
            self.fill(peer, now, changed=True)

    def _part(self, peer: Peer) -> None:
        """Take the busiest half of its parents from a peer; all, where they were of no use yet."""
        busiest = sorted(peer.parents.values(), key=lambda host: host.children, reverse=True)
        if peer.held.bit_count() > YOUNG_HOLDS:
            busiest = busiest[: len(busiest) // 2]
        for parent in busiest:
            assignment.remove(peer, parent.id)

    def _open_seeds(self, task: Task, now: float) -> list[Host]:
        """Return the seeds that may be parents: when all pieces have left them once."""
        if not self._sources.seeds or task.full & ~task.counted():
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


def _children(host: Host) -> int:
    return host.children
