"""The scheduler's core: what hosts tell and `now` in, messages to hosts out.

Pure: it opens nothing, reads no clock, and draws only from the random source that it was handed, so
the server and the simulator run the same code. Whoever drives it calls `connected`, `take` for each
message and `gone`, sends the actions that each call returns, and calls `tick` when `due` is there.
Nothing here is ever polled: a wait is answered in the event that ends it, and `tick` is for what
ends by time alone (grants without life, probation, places left empty).

Here hosts, tasks and peers come and go; `supply` meets wants, `family` gives parents, `editions`
keeps the states of files, `isolation` weighs evidence.

Bad input raises Malformed: the session that sent it is to be ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from chunkstore.errors import Malformed
from p2p import messages, runs
from p2p.messages import Body

from .agenda import Agenda
from .assignment import QUIET
from .deputies import Deputies
from .editions import Editions
from .evaluator import DEFAULT, Evaluator, Limits
from .family import Family
from .homecoming import Homecoming
from .isolation import Isolation, Sentence
from .outbox import Action, Outbox
from .resource import Host, HostState, Peer, PeerState, Task, TaskState
from .sources import Sources
from .standing import aside_standing, host_standing, task_standing
from .supply import Supply

__all__ = ["Action", "Scheduler", "Settings"]

TASKS_PER_HOST = 1024
WANTS_PER_PEER = 1 << 14
"""Pieces; a child asks for what it needs next, not for all that it lacks."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a scheduler may be told."""

    limits: Limits = field(default_factory=Limits)
    evaluator: Evaluator = DEFAULT
    grace: float = 2.0
    """Seconds for which hosts that come back to it are waited for, at most (`homecoming`)."""


class Scheduler:
    """All hosts, tasks and peers of one scheduler."""

    def __init__(self, settings: Settings, random: Random, now: float) -> None:
        self.settings = settings
        self.started = now
        self.hosts: dict[bytes, Host] = {}
        self.tasks: dict[tuple[bytes, str], Task] = {}
        self.sources = Sources()
        self.isolation = Isolation()
        self.events = 0
        self._agenda = Agenda()
        self._outbox = Outbox()
        limits = settings.limits
        self._supply = Supply(self.sources, limits, random, self._outbox, self._agenda)
        self._family = Family(
            limits, settings.evaluator, random, self.sources, self._supply, self._outbox
        )
        self._homecoming = Homecoming(self._family, self._agenda, now, settings.grace)
        self._deputies = Deputies(self.sources, self._family)
        self._editions = Editions(self.sources, self._outbox)
        self._handlers: dict[type[Body], Callable[[Peer, Any, float], None]] = {
            messages.Held: self._held,
            messages.Want: self._want,
            messages.Unwant: self._unwant,
            messages.Return: self._return,
            messages.Report: self._report,
            messages.Need: self._need,
            messages.Publish: self._editions.publish,
            messages.Origin: self._origin,
        }

    # What happens

    def connected(
        self, host: bytes, roles: Iterable[str], now: float, name: str = ""
    ) -> list[Action]:
        """Open a host's session; one that it had before is over.

        *name* is its certificate's; hosts of one name are one witness.
        """
        if host in self.hosts:
            self._lose(self.hosts[host], now)
        self.hosts[host] = Host(host, frozenset(roles), witness=name.encode() or host)
        return self._flush(now)

    def take(self, host: bytes, body: Body, now: float) -> list[Action]:
        """Take a host's message; raise Malformed where it may not or makes no sense."""
        self.events += 1
        sender = self.hosts[host]
        if isinstance(body, messages.Announce):
            self._announce(sender, body, now)
        elif isinstance(body, messages.Join):
            self._join(sender, body, now)
        elif isinstance(body, messages.Leave):
            self._leave(sender, body, now)
        else:
            self._take(sender, body, now)
        return self._flush(now)

    def gone(self, host: bytes, now: float) -> list[Action]:
        """End a host's session."""
        found = self.hosts.get(host)
        if found is not None:
            self._lose(found, now)
        return self._flush(now)

    def tick(self, now: float) -> list[Action]:
        """See to what ends by time."""
        for host in self.isolation.ended(now):
            if host in self.hosts:
                self.hosts[host].move("forgive")
                self._spoil(self.hosts[host], now)
        for convict, sentence in self.isolation.judged(len(self.hosts), now):
            self._isolate(convict, sentence, now)
        for task in self._agenda.taken(now):
            self._tend(task, now)
        return self._flush(now)

    def due(self) -> float:
        """Return when `tick` is to be called at the latest."""
        return min(self._agenda.due, self.isolation.due(), self._editions.due)

    def state(self, now: float) -> dict[str, object]:
        """Return what is known, for people and programs."""
        return {
            "hosts": [host_standing(host) for host in self.hosts.values()],
            "tasks": [task_standing(task) for task in self.tasks.values()],
            "aside": aside_standing(self.isolation, self.hosts, now),
            "events": self.events,
            "up": round(now - self.started, 3),
        }

    def _take(self, host: Host, body: Body, now: float) -> None:
        """Take a message about one of a host's tasks."""
        handler = self._handlers.get(type(body))
        if handler is None:
            raise Malformed("not for a scheduler", type(body).__name__)
        handle: int = body.handle  # type: ignore[attr-defined]  # all that have handlers do
        peer = host.peers.get(handle)
        if peer is None:
            raise Malformed("no such handle", handle)
        if peer.state is not PeerState.LEFT:
            peer.heard = now
            handler(peer, body, now)

    def _tend(self, task: Task, now: float) -> None:
        """See to what ends by time in a task."""
        self._supply.expire(task, now)
        self._homecoming.tend(task, now)
        self._family.tend(task, now)
        self._deputies.tend(task, now)
        if task.wanters:
            self._supply.remind(task, now)
        self._supply.allot(task, now)
        if task.peers and (task.grants.open or task.short or task.wanters or task.settled > now):
            self._agenda.watch(task, now)
        elif task.idle:
            self._agenda.watch(task, now + QUIET)

    def _flush(self, now: float) -> list[Action]:
        """Return what is to be sent: also what was granted, hinted and published meanwhile."""
        self._supply.tell()
        self._editions.tell(now)
        return self._outbox.taken(self.hosts)

    # Hosts

    def _announce(self, host: Host, body: messages.Announce, now: float) -> None:
        if body.kind not in ("peer", "seed"):
            raise Malformed("kind of host", body.kind)
        if body.kind not in host.roles:
            raise Malformed("its certificate does not say", body.kind)
        host.announced = body
        host.move("announce")
        if host.state is HostState.ACTIVE and host.id in self.isolation.aside:
            host.move("isolate")
        if body.kind == "seed":
            self.sources.seeds[host.id] = host
        else:
            self.sources.seeds.pop(host.id, None)
        self._spoil(host, now)

    def _lose(self, host: Host, now: float) -> None:
        host.move("lose")
        del self.hosts[host.id]
        seed = self.sources.seeds.pop(host.id, None)
        for peer in list(host.peers.values()):
            self._leave_task(peer, now)
        if seed is not None:
            for task in self.tasks.values():
                self._supply.revoke(task, host, now)
        if host.children:
            for task in list(self.tasks.values()):
                self._family.bereave(task, host, now)
        self.isolation.forget(host.id, host.witness)

    def _spoil(self, host: Host, now: float) -> None:
        """Count anew what a host holds: it shares now, or no longer does."""
        for peer in host.peers.values():
            peer.task.stale = True
            self._agenda.hurry(peer.task, now)

    def _isolate(self, host: bytes, sentence: Sentence, now: float) -> None:
        if host not in self.hosts:
            return
        convict = self.hosts[host]
        convict.move("isolate")
        self._spoil(convict, now)
        aside = messages.Aside(host, sentence.until - now, sentence.reason)
        for task in list(self.tasks.values()):
            for child in self._family.bereave(task, convict, now):
                self._outbox.say(child.host, aside)
            self._supply.revoke(task, convict, now)

    # Peers

    def _join(self, host: Host, body: messages.Join, now: float) -> None:
        if host.announced is None:
            raise Malformed("JOIN before ANNOUNCE")
        if len(host.peers) >= TASKS_PER_HOST:
            raise Malformed("tasks joined", len(host.peers))
        for old in [each for each in host.peers.values() if each.handle == body.handle]:
            self._leave_task(old, now)
        task = self._task(body, host, now)
        if host.id in task.by_host:
            self._leave_task(task.by_host[host.id], now)
            self.tasks.setdefault(_key(task), task)
        peer = Peer(host, task, body.handle, body.bulk, heard=now)
        host.peers[body.handle] = peer
        task.add(peer)
        have = runs.decode(body.have, task.description.pieces)
        self._editions.welcome(peer)
        if peer.bulk and host.kind != "seed":
            task.rotation.append(peer)
        self._gain(peer, have, now)
        self._homecoming.welcome(peer, body.parents, now)
        self._family.join(peer, now)
        self._supply.allot(task, now)
        self._agenda.watch(task, now)

    def _task(self, body: messages.Join, host: Host, now: float) -> Task:
        wanted = self._editions.wanted(host, body)
        key = body.task, wanted.validator
        task = self.tasks.get(key)
        if task is None:
            task = self.tasks[key] = Task(body.task, wanted, since=now)
        elif wanted.pieces > task.description.pieces:
            # a bootstrap that lists only part of a blob does not know of the rest
            task.description = wanted
            task.full = runs.full(wanted.pieces)
        return task

    def _leave(self, host: Host, body: messages.Leave, now: float) -> None:
        peer = host.peers.get(body.handle)
        if peer is not None:
            self._leave_task(peer, now)

    def _leave_task(self, peer: Peer, now: float) -> None:
        task, host = peer.task, peer.host
        if host.peers.get(peer.handle) is peer:
            del host.peers[peer.handle]
        if peer.state is PeerState.LEFT:
            return
        peer.move("leave")
        self._supply.unwant(peer, peer.wanted)
        task.remove(peer)
        self._family.leave(peer, now)
        task.stale = True
        if task.peers:
            self._supply.revoke(task, host, now)
        else:
            self.tasks.pop(_key(task), None)
            self.sources.forget(task)
            if all(name != task.id for name, _ in self.tasks):
                self._editions.forget(task.id)

    def _held(self, peer: Peer, body: messages.Held, now: float) -> None:
        count = peer.task.description.pieces
        add, drop = runs.decode(body.add, count), runs.decode(body.drop, count)
        if drop & peer.held:
            peer.held &= ~drop
            peer.task.stale = True
            if peer.state is PeerState.FINISHED:
                peer.move("drop")
                if peer.bulk and peer.host.kind != "seed":
                    peer.task.rotation.append(peer)
            self._agenda.watch(peer.task, now)
        self._gain(peer, add, now)

    def _gain(self, peer: Peer, bits: int, now: float) -> None:
        """Note that a peer holds pieces, and everything that this ends."""
        closed = self._supply.fulfilled(peer, bits, now)
        new = bits & ~peer.held
        if new:
            peer.held |= new
            self._supply.gained(peer, new, now)
            if not peer.missing and peer.state is not PeerState.FINISHED:
                self._finish(peer, now)
        if closed:
            self._supply.more(peer, now)

    def _finish(self, peer: Peer, now: float) -> None:
        peer.move("fill")
        task = peer.task
        if peer in task.rotation:
            task.rotation.remove(peer)
        self._family.finish(peer)
        if peer.shares and task.state is not TaskState.COMPLETE:
            task.move("hold")
            task.move("fill")
        self._family.show(task, now)

    # What peers say

    def _want(self, peer: Peer, body: messages.Want, now: float) -> None:
        bits = runs.decode(body.pieces, peer.task.description.pieces)
        if (peer.wanted | bits).bit_count() > WANTS_PER_PEER:
            raise Malformed("pieces wanted at once", (peer.wanted | bits).bit_count())
        self._supply.want(peer, bits, body.urgent, now)

    def _unwant(self, peer: Peer, body: messages.Unwant, now: float) -> None:
        bits = runs.decode(body.pieces, peer.task.description.pieces)
        self._supply.unwant(peer, bits)

    def _return(self, peer: Peer, body: messages.Return, now: float) -> None:
        bits = runs.decode(body.pieces, peer.task.description.pieces)
        self._supply.returned(peer, bits, body.reason, now)

    def _report(self, peer: Peer, body: messages.Report, now: float) -> None:
        parent, witness = self.hosts.get(body.parent), peer.host.witness
        if parent is None:
            return
        parent.learn(body)
        if body.corrupt:
            sentence = self.isolation.corrupt(body.parent, witness, now)
            if sentence is not None:
                self._isolate(body.parent, sentence, now)
            if self._family.reject(peer, body.parent, peer.failed, now):
                self._family.fill(peer, now, changed=True)
        if body.absent:
            self.isolation.hollow(body.parent, witness, now)
        if body.timeouts and parent.kind == "seed":
            return  # it waits for its origin, perhaps: what its children return is weighed
        if body.timeouts:
            self.isolation.late(body.parent, witness, body.timeouts, now)
        elif body.served:
            self.isolation.served(body.parent, witness)

    def _need(self, peer: Peer, body: messages.Need, now: float) -> None:
        changed = False
        for host in body.useless:
            changed |= self._family.reject(peer, host, peer.useless, now)
        for host in body.failed:
            changed |= self._family.reject(peer, host, peer.failed, now)
        self._family.fill(peer, now, changed)
        self._supply.search(peer, now)

    def _origin(self, peer: Peer, body: messages.Origin, now: float) -> None:
        if not self._editions.told(peer, body, now):
            return
        for other in [each for each in self.tasks.values() if each.id == peer.task.id]:
            if other.description.validator == body.validator:
                continue
            self._editions.over(other)
            for member in list(other.peers):
                self._leave_task(member, now)
                # its words about the task may be on their way; LEAVE or JOIN frees the handle
                member.host.peers[member.handle] = member


def _key(task: Task) -> tuple[bytes, str]:
    return task.id, task.description.validator
