"""How wants are met: by a hint where a holder is, by a grant where none is, else by a wait."""

from __future__ import annotations

from itertools import islice
from random import Random

from p2p import messages, runs

from .agenda import Agenda
from .allocation import Allocation
from .crossing import Crossing
from .evaluator import Limits
from .hints import Hints
from .outbox import Outbox
from .resource import Host, Peer, PeerState, Task
from .sources import Sources

WAIT_LEAST = 1.0
"""Seconds."""


class Supply:
    """Wants, hints and grants of all tasks."""

    def __init__(
        self, sources: Sources, limits: Limits, random: Random, outbox: Outbox, agenda: Agenda
    ) -> None:
        self.sources = sources
        self._looked = limits.filter_parents
        """Who is looked at, at most, of those who may be many."""
        self._outbox = outbox
        self._agenda = agenda
        self._hints = Hints(random)
        self.crossing = Crossing(self._hints.holder, limits.candidate_parents + 1)
        self._allocation = Allocation(sources, self._hints.orphan)

    def want(self, peer: Peer, bits: int, urgent: bool, now: float) -> None:
        """Take what a peer wants; it is granted, sent to a holder, or told to wait."""
        self._hints.want(peer, bits, urgent, now)
        self._allocation.serve(peer, now)
        self._hints.convoy.room(now)
        self._wait(peer, bits, now)
        self._agenda.watch(peer.task, now)

    def unwant(self, peer: Peer, bits: int) -> None:
        """Forget what a peer wanted."""
        self._hints.unwant(peer, bits)

    def search(self, peer: Peer, now: float) -> None:
        """Look anew for all that a peer wants."""
        if peer.wanted:
            self._hints.search(peer, peer.wanted, now)
            self._allocation.serve(peer, now)

    def gained(self, peer: Peer, new: int, now: float) -> None:
        """Note that a peer holds *new* pieces."""
        self._hints.convoy.came(peer, new, now)
        self._hints.unwant(peer, new & peer.wanted)
        if peer.shares:
            peer.task.gain(peer, new)
            self._hints.held(peer, new, now)
            self.crossing.gained(peer, new, now)
        self._hints.convoy.room(now)

    def fulfilled(self, peer: Peer, bits: int, now: float) -> bool:
        """Close grants of *bits* that a peer holds now; return whether there were any."""
        closed = peer.task.grants.held(peer.host.id, bits, now)
        return bool(closed | peer.site.grants.held(peer.host.id, bits, now))

    def more(self, peer: Peer, now: float) -> None:
        """Grant more: grants of a peer were fulfilled."""
        self.crossing.allot(peer.task, peer.site, now)
        self._allocation.serve(peer, now)
        self._allocation.allot(peer.task, now)

    def allot(self, task: Task, now: float) -> None:
        """Grant what the windows of a task's sources have room for."""
        self._allocation.allot(task, now)

    def free(self, task: Task) -> int:
        """Return the pieces that nobody holds and nobody has a grant for."""
        return self._allocation.free(task)

    def returned(self, peer: Peer, bits: int, reason: str, now: float) -> None:
        """Take back grants that came to nothing; where there is a *reason*, its source failed."""
        task = peer.task
        peer.site.grants.returned(peer.host.id, bits)
        failed = task.grants.returned(peer.host.id, bits)
        for source in {grant.source: None for grant in failed}:
            if source is not None and reason:
                self.sources.failed(peer, source, now)
        self._again(task, [grant.piece for grant in failed], now, last=peer)

    def revoke(self, task: Task, host: Host, now: float) -> None:
        """Give again what a lost host had grants for, or was the source of."""
        self.crossing.lost(task, host)
        lost = task.grants.lost(host.id)
        self._again(task, [grant.piece for grant in lost], now)
        if task.stale:
            self._agenda.watch(task, now)

    def expire(self, task: Task, now: float) -> None:
        """Give again what showed no life."""
        if self.crossing.tend(task, now):
            self._agenda.watch(task, now)
        for grant in task.grants.expired(now):
            task.doubt = max(task.doubt, grant.until - grant.lasts / 2)
            self._again(task, [grant.piece], now, last=task.by_host.get(grant.holder))

    def remind(self, task: Task, now: float) -> None:
        """Look again for those who wait: a few per tick, who has waited longest first."""
        looked = self._looked
        self._hints.convoy.expire(task, now)
        self._hints.convoy.room(now)
        for piece in list(runs.numbers(task.wanted & (task.counted() | self.free(task)))):
            for peer, last in list(islice(task.wanters[piece].items(), looked)):
                if now - last >= 1.0:
                    self._hints.search(peer, 1 << piece, now)
                    self._allocation.serve(peer, now)
                    looked -= 1
            if looked <= 0:
                return

    def tell(self) -> None:
        """Say what was granted and hinted meanwhile."""
        for (peer, source), bits in self._allocation.taken().items():
            self._grant(peer, source, bits)
        for (peer, source_host), bits in self.crossing.taken().items():
            self._cross(peer, source_host, bits)
        for (peer, holder), bits in self._hints.taken().items():
            for part in runs.parts(bits):
                self._outbox.say(peer.host, messages.Hint(peer.handle, part, holder.parent()))

    def _wait(self, peer: Peer, bits: int, now: float) -> None:
        """Tell a peer to wait for what it was neither granted nor sent anywhere for."""
        task = peer.task
        bits &= peer.wanted & ~task.grants.of(peer.host.id)
        for (other, _), hinted in self._hints.given.items():
            bits &= ~hinted if other is peer else -1
        if not bits:
            return
        ends = [grant.until for piece, grant in task.grants.open.items() if bits >> piece & 1]
        seconds = max(WAIT_LEAST, max(ends, default=now) - now, task.settled - now)
        if not peer.bulk:  # it is sent to who has it next
            seconds = max(seconds, self._hints.convoy.patience(task))
        for part in runs.parts(bits):
            self._outbox.say(peer.host, messages.Wait(peer.handle, part, seconds))

    def _again(self, task: Task, pieces: list[int], now: float, last: Peer | None = None) -> None:
        """Pieces are free again: grant them to those who want them, *last* after all others."""
        for piece in pieces:
            for peer in list(islice(task.wanters.get(piece, ()), self._looked)):
                if peer is not last:
                    self._allocation.serve(peer, now)
        self._allocation.allot(task, now)
        if last is not None:
            self._allocation.serve(last, now)

    def _grant(self, peer: Peer, source: bytes | None, bits: int) -> None:
        grants = peer.task.grants
        bits &= grants.of(peer.host.id)
        if not bits:
            return
        if peer.state is PeerState.JOINED:
            peer.move("start")
        lasts = max(grants.open[piece].lasts for piece in runs.numbers(bits))
        seed = self.sources.seeds[source].parent() if source is not None else None
        for part in runs.parts(bits):
            self._outbox.say(peer.host, messages.Grant(peer.handle, part, seed, lasts))
        self._agenda.watch(peer.task, grants.due())

    def _cross(self, peer: Peer, source: Host, bits: int) -> None:
        grants = peer.site.grants
        bits &= grants.of(peer.host.id)
        if not bits:
            return
        lasts = max(grants.open[piece].lasts for piece in runs.numbers(bits))
        for part in runs.parts(bits):
            self._outbox.say(peer.host, messages.Grant(peer.handle, part, source.parent(), lasts))
        self._agenda.watch(peer.task, grants.due())
