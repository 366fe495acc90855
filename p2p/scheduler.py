"""The scheduler's core: what hosts tell and `now` in, messages to hosts out.

Pure: it opens nothing, reads no clock, and draws only from the random source that it was handed, so
the server and the simulator run the same code. Whoever drives it calls `connected`, `take` for each
message and `gone`, sends the actions that each call returns, and calls `tick` when `due` is there.
Nothing here is ever polled: a wait is answered in the event that ends it, and `tick` is for what
ends by time alone (grants without life, probation, places left empty).

Bad input raises Malformed: the session that sent it is to be ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from chunkstore.errors import Malformed

from . import assignment, messages, runs
from .allocation import Allocation
from .digests import Digests
from .evaluator import DEFAULT, Evaluator, Limits
from .hints import Hints
from .isolation import Isolation, Sentence
from .messages import Body
from .resource import Host, HostState, Peer, PeerState, Task, TaskState
from .sources import Sources

Action = tuple[bytes, Body]
"""A host and what it is to be sent."""

TICK = 0.1
"""Seconds between ticks while something ends by time."""
USELESS_FOR = 5.0
"""Seconds for which a useless parent is not given to the same child again."""
YOUNG_HOLDS = 8
"""Pieces; who holds more has made use of its parents."""
TASKS_PER_HOST = 1024
WANTS_PER_PEER = 1 << 14
"""Pieces; a child asks for what it needs next, not for all that it lacks."""
WAIT_LEAST = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What a scheduler may be told."""

    limits: Limits = field(default_factory=Limits)
    evaluator: Evaluator = DEFAULT
    grace: float = 2.0
    """Seconds after its start in which hosts that hold something are still on their way back."""


class Scheduler:
    """All hosts, tasks and peers of one scheduler."""

    def __init__(self, settings: Settings, random: Random, now: float) -> None:
        self.settings = settings
        self.random = random
        self.started = now
        self.hosts: dict[bytes, Host] = {}
        self.tasks: dict[tuple[bytes, str], Task] = {}
        self.sources = Sources()
        self.isolation = Isolation()
        self.events = 0
        self._allocation = Allocation(self.sources)
        self._hints = Hints(random)
        self._digests = Digests()
        self._busy: dict[Task, None] = {}
        self._next = float("inf")
        self._out: list[Action] = []
        self._handlers: dict[type[Body], Callable[[Peer, Any, float], None]] = {
            messages.Held: self._held,
            messages.Want: self._want,
            messages.Unwant: self._unwant,
            messages.Return: self._return,
            messages.Report: self._report,
            messages.Need: self._need,
            messages.Publish: self._publish,
            messages.Origin: self._origin,
        }

    # What happens

    def connected(self, host: bytes, roles: Iterable[str], now: float) -> list[Action]:
        """Open a host's session; one that it had before is over."""
        if host in self.hosts:
            self._lose(self.hosts[host], now)
        self.hosts[host] = Host(host, frozenset(roles))
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
        busy, self._busy = self._busy, {}
        for task in busy:
            self._tend(task, now)
        self._next = now + TICK if self._busy else float("inf")
        return self._flush(now)

    def due(self) -> float:
        """Return when `tick` is to be called at the latest."""
        return min(self._next, self.isolation.due(), self._digests.due)

    def state(self, now: float) -> dict[str, object]:
        """Return what is known, for people and programs."""
        return {
            "hosts": [_host_state(host) for host in self.hosts.values()],
            "tasks": [_task_state(task) for task in self.tasks.values()],
            "aside": [
                {
                    "host": host.hex(),
                    "name": _name(self.hosts.get(host)),
                    "reason": sentence.reason,
                    "seconds": round(max(0.0, sentence.until - now), 3),
                    "times": sentence.times,
                }
                for host, sentence in self.isolation.aside.items()
            ],
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
            handler(peer, body, now)

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
                self._revoke(task, host, now)
        elif host.children:
            self._bereave(host, now)
        self.isolation.forget(host.id)

    def _bereave(self, host: Host, now: float) -> None:
        """Take a host from all its children."""
        for task in list(self.tasks.values()):
            for child in assignment.children(task, host.id):
                assignment.remove(child, host.id)
                self._fill(child, now, changed=True)

    def _spoil(self, host: Host, now: float) -> None:
        """Count anew what a host holds: it shares now, or no longer does."""
        for peer in host.peers.values():
            peer.task.stale = True
            self._busy[peer.task] = None
        if host.peers:
            self._next = min(self._next, now)

    def _isolate(self, host: bytes, sentence: Sentence | None, now: float) -> None:
        if sentence is None or host not in self.hosts:
            return
        convict = self.hosts[host]
        convict.move("isolate")
        self._spoil(convict, now)
        for task in list(self.tasks.values()):
            for child in assignment.children(task, host):
                assignment.remove(child, host)
                aside = messages.Aside(host, sentence.until - now, sentence.reason)
                self._say(child.host, aside)
                self._fill(child, now, changed=True)
            self._revoke(task, convict, now)

    # Peers

    def _join(self, host: Host, body: messages.Join, now: float) -> None:
        if host.announced is None:
            raise Malformed("JOIN before ANNOUNCE")
        if len(host.peers) >= TASKS_PER_HOST:
            raise Malformed("tasks joined", len(host.peers))
        for old in [each for each in host.peers.values() if each.handle == body.handle]:
            self._leave_task(old, now)
        task = self._task(body, host)
        if host.id in task.by_host:
            self._leave_task(task.by_host[host.id], now)
            self.tasks.setdefault(_key(task), task)
        peer = Peer(host, task, body.handle, body.bulk)
        host.peers[body.handle] = peer
        task.add(peer)
        have = runs.decode(body.have, task.description.pieces)
        if have and peer.shares and now < self.started + self.settings.grace:
            task.settled = self.started + self.settings.grace
        self._tell_digests(peer)
        if peer.bulk and host.kind != "seed":
            task.rotation.append(peer)
        self._gain(peer, have, now)
        if host.kind != "seed":
            self._fill(peer, now)
            task.young[peer] = len(task.peers)
        for other in list(task.short)[: self.settings.limits.filter_parents]:
            self._fill(other, now)
        self._allocation.allot(task, now)
        self._watch(task, now)

    def _task(self, body: messages.Join, host: Host) -> Task:
        wanted = body.description
        state = self._digests.states.get(body.task)
        if wanted.kind == "file" and state is not None and wanted.validator != state.validator:
            self._say(host, messages.Changed(body.handle, state.length, state.validator))
            if not wanted.validator:
                wanted = self._digests.described(body.task, wanted)
        key = body.task, wanted.validator
        task = self.tasks.get(key)
        if task is None:
            task = self.tasks[key] = Task(body.task, wanted)
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
        self._hints.unwant(peer, peer.wanted)
        task.remove(peer)
        task.blocked.pop(peer, None)
        task.short.pop(peer, None)
        task.young.pop(peer, None)
        if peer in task.rotation:
            task.rotation.remove(peer)
        for parent in list(peer.parents):
            assignment.remove(peer, parent)
        for child in assignment.children(task, host.id) if host.children else ():
            assignment.remove(child, host.id)
            self._fill(child, now, changed=True)
        task.stale = True
        if task.peers:
            self._revoke(task, host, now)
        else:
            self.tasks.pop(_key(task), None)
            self.sources.forget(task)
            if all(name != task.id for name, _ in self.tasks):
                self._digests.states.pop(task.id, None)

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
            self._watch(peer.task, now)
        self._gain(peer, add, now)

    def _gain(self, peer: Peer, bits: int, now: float) -> None:
        """Note that a peer holds pieces, and everything that this ends."""
        task = peer.task
        closed = task.grants.held(peer.host.id, bits, now)
        new = bits & ~peer.held
        if new:
            peer.held |= new
            self._hints.unwant(peer, new & peer.wanted)
            if peer.shares:
                task.held |= new
                self._hints.held(peer, new, now)
            if not peer.missing and peer.state is not PeerState.FINISHED:
                self._finish(peer)
        if closed:
            self._allocation.serve(peer, now)
            self._allocation.allot(task, now)

    def _finish(self, peer: Peer) -> None:
        peer.move("fill")
        task = peer.task
        if peer in task.rotation:
            task.rotation.remove(peer)
        task.short.pop(peer, None)
        for parent in list(peer.parents):
            assignment.remove(peer, parent)
        if peer.shares and task.state is not TaskState.COMPLETE:
            task.move("hold")
            task.move("fill")

    def _want(self, peer: Peer, body: messages.Want, now: float) -> None:
        bits = runs.decode(body.pieces, peer.task.description.pieces)
        if (peer.wanted | bits).bit_count() > WANTS_PER_PEER:
            raise Malformed("pieces wanted at once", (peer.wanted | bits).bit_count())
        self._hints.want(peer, bits, body.urgent, now)
        self._allocation.serve(peer, now)
        self._wait(peer, bits, now)
        self._watch(peer.task, now)

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
        for part in runs.parts(bits):
            self._say(peer.host, messages.Wait(peer.handle, part, seconds))

    def _unwant(self, peer: Peer, body: messages.Unwant, now: float) -> None:
        bits = runs.decode(body.pieces, peer.task.description.pieces)
        self._hints.unwant(peer, bits)

    def _return(self, peer: Peer, body: messages.Return, now: float) -> None:
        task = peer.task
        bits = runs.decode(body.pieces, task.description.pieces)
        failed = task.grants.returned(peer.host.id, bits)
        for source in {grant.source: None for grant in failed}:
            if source is not None and body.reason:
                self.sources.failed(task, source, now)
        self._again(task, [grant.piece for grant in failed], now, last=peer)

    def _revoke(self, task: Task, host: Host, now: float) -> None:
        """Give again what a lost host had grants for, or was the source of."""
        lost = task.grants.lost(host.id)
        self._again(task, [grant.piece for grant in lost], now)
        if task.stale:
            self._watch(task, now)

    def _again(self, task: Task, pieces: list[int], now: float, last: Peer | None = None) -> None:
        """Pieces are free again: grant them to those who want them, *last* after all others."""
        for piece in pieces:
            for peer in list(task.wanters.get(piece, ()))[: self.settings.limits.filter_parents]:
                if peer is not last:
                    self._allocation.serve(peer, now)
        self._allocation.allot(task, now)
        if last is not None:
            self._allocation.serve(last, now)

    def _report(self, peer: Peer, body: messages.Report, now: float) -> None:
        parent = self.hosts.get(body.parent)
        if parent is None:
            return
        parent.served += body.served
        parent.failed += body.corrupt + body.timeouts
        if body.seconds > 0 and body.size:
            rate = body.size / body.seconds
            parent.rate += (rate - parent.rate) / 4 if parent.rate else rate
        if body.corrupt:
            self._isolate(body.parent, self.isolation.corrupt(body.parent, peer.host.id, now), now)
            if self._reject(peer, body.parent, peer.failed, now):
                self._fill(peer, now, changed=True)
        if body.timeouts:
            sentence = self.isolation.late(body.parent, peer.host.id, body.timeouts, now)
            self._isolate(body.parent, sentence, now)
        elif body.served:
            self.isolation.served(body.parent, peer.host.id)

    def _need(self, peer: Peer, body: messages.Need, now: float) -> None:
        changed = False
        for host in body.useless:
            changed |= self._reject(peer, host, peer.useless, now)
        for host in body.failed:
            changed |= self._reject(peer, host, peer.failed, now)
        self._fill(peer, now, changed)
        if peer.wanted:
            self._hints.search(peer, peer.wanted, now)
            self._allocation.serve(peer, now)

    def _reject(self, peer: Peer, host: bytes, until: dict[bytes, float], now: float) -> bool:
        """Keep a host from a peer for a while; return whether it was a parent."""
        if len(until) > 2 * self.settings.limits.filter_parents:
            for old in [each for each, end in until.items() if end <= now]:
                del until[old]
        until[host] = now + USELESS_FOR
        return assignment.remove(peer, host)

    def _fill(self, peer: Peer, now: float, changed: bool = False) -> None:
        """Fill the empty places among a peer's parents; tell it when something is other."""
        task, limits = peer.task, self.settings.limits
        if peer.state in (PeerState.FINISHED, PeerState.LEFT):
            return
        if len(peer.parents) < limits.candidate_parents:
            seeds = self._open_seeds(task, now)
            found = [
                host
                for host in assignment.candidates(peer, seeds, limits, self.random)
                if max(peer.useless.get(host.id, now), peer.failed.get(host.id, now)) <= now
            ]
            changed |= assignment.fill(peer, found, self.settings.evaluator, limits, task.by_host)
        if len(peer.parents) < limits.candidate_parents:
            task.short[peer] = None
        else:
            task.short.pop(peer, None)
        if changed:
            peer.move("start")
            parents = [host.parent() for host in peer.parents.values()]
            self._say(peer.host, messages.Parents(peer.handle, parents))

    def _open_seeds(self, task: Task, now: float) -> list[Host]:
        """Return the seeds that may be parents: when all pieces have left them once."""
        if not self.sources.seeds or self._allocation.free(task):
            return []
        return [self.sources.seeds[each] for each in self.sources.of(task, now)]

    # Files

    def _publish(self, peer: Peer, body: messages.Publish, now: float) -> None:
        task = peer.task
        if task.description.kind != "file":
            raise Malformed("digests of a blob's pieces")
        if body.first + len(body.digests) > task.description.pieces:
            raise Malformed("digests beyond the pieces", body.first, len(body.digests))
        if peer.host.kind == "seed":
            allowed = task.full
        elif self.sources.seeds:
            allowed = peer.granted
        else:  # what it has read before counts too, but not what somebody else is reading now
            allowed = task.full & ~(task.grants.bits & ~peer.granted)
        if self._digests.publish(task, body, allowed, now):
            self._over(task)

    def _origin(self, peer: Peer, body: messages.Origin, now: float) -> None:
        task = peer.task
        if task.description.kind != "file":
            raise Malformed("an origin's state of a blob")
        if peer.host.kind != "seed" and self.sources.of(task, now):
            return  # the seed will see for itself
        self._digests.told(task.id, body)
        for other in [each for each in self.tasks.values() if each.id == task.id]:
            if other.description.validator == body.validator:
                continue
            self._over(other)
            for member in list(other.peers):
                self._leave_task(member, now)
                # its words about the task may be on their way; LEAVE or JOIN frees the handle
                member.host.peers[member.handle] = member

    def _over(self, task: Task) -> None:
        """End a task whose state of the origin is no more."""
        task.move("change")
        state = self._digests.states.get(task.id)
        length = state.length if state else task.description.size
        validator = state.validator if state else ""
        for peer in task.peers:
            self._say(peer.host, messages.Changed(peer.handle, length, validator))

    def _tell_digests(self, peer: Peer) -> None:
        for body in self._digests.known(peer.task, peer.handle):
            self._say(peer.host, body)

    # Time

    def _tend(self, task: Task, now: float) -> None:
        """See to what ends by time in a task."""
        for grant in task.grants.expired(now):
            self._again(task, [grant.piece], now, last=task.by_host.get(grant.holder))
        if task.young:
            self._mix(task, now)
        for peer in list(task.short)[: self.settings.limits.filter_parents]:
            task.short.pop(peer)
            self._fill(peer, now)
        if task.wanters:
            self._remind(task, now)
        self._allocation.allot(task, now)
        if task.peers and (
            task.grants.open or task.short or task.wanters or task.young or task.settled > now
        ):
            self._busy[task] = None

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
            self._fill(peer, now, changed=True)

    def _remind(self, task: Task, now: float) -> None:
        """Look again for those who wait: a few per tick, who has waited longest first."""
        looked = self.settings.limits.filter_parents
        for piece in list(
            runs.numbers(task.wanted & (task.counted() | self._allocation.free(task)))
        ):
            for peer, last in list(task.wanters[piece].items())[:looked]:
                if now - last >= 1.0:
                    self._hints.search(peer, 1 << piece, now)
                    self._allocation.serve(peer, now)
                    looked -= 1
            if looked <= 0:
                return

    def _watch(self, task: Task, now: float) -> None:
        self._busy[task] = None
        self._next = min(self._next, now + TICK)

    # Words

    def _say(self, host: Host, body: Body) -> None:
        self._out.append((host.id, body))

    def _flush(self, now: float) -> list[Action]:
        """Return what is to be sent: also what was granted, hinted and published meanwhile."""
        for (peer, source), bits in self._allocation.taken().items():
            self._grant(peer, source, bits)
        for (peer, holder), bits in self._hints.taken().items():
            for part in runs.parts(bits):
                self._say(peer.host, messages.Hint(peer.handle, part, holder.parent()))
        for task, body in self._digests.taken(now):
            for peer in task.peers:
                self._say(peer.host, body(peer.handle))
        out, self._out = self._out, []
        return [action for action in out if action[0] in self.hosts]

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
            self._say(peer.host, messages.Grant(peer.handle, part, seed, lasts))
        self._watch(peer.task, grants.due())


def _key(task: Task) -> tuple[bytes, str]:
    return task.id, task.description.validator


def _name(host: Host | None) -> str:
    return host.announced.name if host and host.announced else ""


def _host_state(host: Host) -> dict[str, object]:
    announced = host.announced
    return {
        "host": host.id.hex(),
        "name": _name(host),
        "address": announced.address if announced else "",
        "kind": host.kind,
        "idc": announced.idc if announced else "",
        "location": announced.location if announced else "",
        "state": host.state.value,
        "tasks": len(host.peers),
        "children": host.children,
        "served": host.served,
        "failed": host.failed,
        "rate": round(host.rate),
    }


def _task_state(task: Task) -> dict[str, object]:
    peers = task.peers
    return {
        "task": task.id.hex()[:16],  # who knows all of a private one's may have it
        "name": task.description.name,
        "kind": task.description.kind,
        "size": task.description.size,
        "pieces": task.description.pieces,
        "state": task.state.value,
        "peers": len(peers),
        "finished": sum(peer.state is PeerState.FINISHED for peer in peers),
        "held": task.counted().bit_count(),
        "grants": len(task.grants.open),
        "wanted": task.wanted.bit_count(),
    }
