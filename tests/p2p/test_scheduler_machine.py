"""The scheduler as a state machine: hosts do what they like, the rules hold all the while."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fixtures.swarmhosts import TASK, Hosts, Told
from p2p import messages, runs
from p2p.messages import Body
from p2p.scheduling.allocation import ALONE_BYTES, OPEN_PER_HOST
from p2p.scheduling.evaluator import Limits
from p2p.scheduling.resource import HostState, PeerState, Task
from p2p.scheduling.scheduler import Settings

PIECES = 24
LIMITS = Limits(candidate_parents=2, filter_parents=5, peer_load=3, seed_load=4)

picks = st.integers(0, 1 << 30)
bitmaps = st.integers(0, (1 << PIECES) - 1)


class Watched(Hosts):
    """Hosts that check each message against what is true when it comes."""

    def hear(self, host: Told, body: Body) -> None:
        if isinstance(body, messages.Hint):
            holder = self.hosts[body.parent.host]
            assert holder is not host
            assert runs.bitmap(body.pieces) & ~holder.held == 0
            assert holder.uploads
        elif isinstance(body, messages.Parents):
            given = [parent.host for parent in body.parents]
            assert len(set(given)) == len(given) <= LIMITS.candidate_parents
            assert host.id not in given
            assert all(self.scheduler.hosts[each].uploads for each in given)
        elif isinstance(body, messages.Grant):
            assert runs.bitmap(body.pieces) & ~((1 << PIECES) - 1) == 0
            if body.source is not None and self.hosts[body.source.host].kind != "seed":
                holder = self.hosts[body.source.host]
                assert holder is not host
                assert runs.bitmap(body.pieces) & ~holder.held == 0
        super().hear(host, body)


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(seed=picks)
    def start(self, seed: int) -> None:
        self.swarm = Watched(PIECES, Settings(limits=LIMITS), seed)
        self.count = 0

    # What hosts do

    @precondition(lambda self: len(self.swarm.hosts) < 10)
    @rule(
        kind=st.sampled_from(["peer", "peer", "peer", "seed"]),
        uploads=st.booleans(),
        idc=st.sampled_from(["", "here", "there"]),
    )
    def arrives(self, kind: str, uploads: bool, idc: str) -> None:
        self.count += 1
        self.swarm.add(self.count, kind, uploads or kind == "seed", idc)

    @rule(pick=picks, have=bitmaps, some=st.booleans(), bulk=st.booleans())
    def joins(self, pick: int, have: int, some: bool, bulk: bool) -> None:
        host = self._pick(pick, joined=False)
        if host is not None and host.kind != "seed":
            self.swarm.join(host, have if some else 0, bulk)

    @rule(pick=picks, bits=bitmaps, urgent=st.booleans())
    def wants(self, pick: int, bits: int, urgent: bool) -> None:
        host = self._pick(pick)
        if host is None:
            return
        self.swarm.want(host, bits, urgent)
        answered = runs.of([*host.grants, *host.hints]) | host.waits
        assert host.wanted & bits & ~answered == 0, "a want without an answer"

    @rule(pick=picks, bits=bitmaps)
    def wants_no_more(self, pick: int, bits: int) -> None:
        host = self._pick(pick)
        if host is not None:
            host.wanted &= ~bits
            self.swarm.tell(host, messages.Unwant(1, runs.encode(bits)))

    @rule(pick=picks)
    def gets_what_was_granted(self, pick: int) -> None:
        host = self._pick(pick)
        if host is not None and host.grants:
            self.swarm.held(host, 1 << next(iter(host.grants)))

    @rule(pick=picks)
    def gets_what_was_hinted(self, pick: int) -> None:
        host = self._pick(pick)
        if host is not None:
            self._follow_hints(host)

    @rule(pick=picks, bits=bitmaps)
    def gets_from_parents(self, pick: int, bits: int) -> None:
        host = self._pick(pick)
        if host is not None:
            there = 0
            for parent in host.parents:
                if parent in self.swarm.hosts:
                    there |= self.swarm.hosts[parent].held
            self.swarm.held(host, there & bits)

    @rule(pick=picks, bits=bitmaps)
    def drops(self, pick: int, bits: int) -> None:
        host = self._pick(pick)
        if host is not None:
            host.held &= ~bits
            self.swarm.tell(host, messages.Held(1, [], runs.encode(bits)))

    @rule(pick=picks, reason=st.sampled_from(["", "failed"]))
    def returns(self, pick: int, reason: str) -> None:
        host = self._pick(pick)
        if host is not None and host.grants:
            piece = next(iter(host.grants))
            del host.grants[piece]
            self.swarm.tell(host, messages.Return(1, [piece, piece + 1], reason))

    @rule(pick=picks, useless=st.booleans())
    def complains(self, pick: int, useless: bool) -> None:
        host = self._pick(pick)
        if host is not None and host.parents:
            parent = host.parents[0]
            lists = ([parent], []) if useless else ([], [parent])
            self.swarm.tell(host, messages.Need(1, *lists))

    @rule(pick=picks, corrupt=st.integers(0, 1), timeouts=st.integers(0, 4))
    def reports(self, pick: int, corrupt: int, timeouts: int) -> None:
        host = self._pick(pick)
        if host is not None and host.parents:
            parent = host.parents[pick % len(host.parents)]
            body = messages.Report(1, parent, corrupt=corrupt, timeouts=timeouts)
            self.swarm.tell(host, body)

    @rule(pick=picks)
    def leaves(self, pick: int) -> None:
        host = self._pick(pick)
        if host is not None:
            self.swarm.tell(host, messages.Leave(1))
            self.swarm.hosts[host.id] = Told(host.id, host.kind, host.uploads)

    @rule(pick=picks)
    def dies(self, pick: int) -> None:
        if self.swarm.hosts:
            hosts = list(self.swarm.hosts.values())
            self.swarm.gone(hosts[pick % len(hosts)])

    @rule(seconds=st.sampled_from([0.01, 0.3, 2.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.swarm.wait(seconds)
        self._forget_expired()

    # What holds

    @invariant()
    def grants_are_few_and_one_each(self) -> None:
        task = self._task()
        if task is None:
            return
        by_host: dict[bytes, int] = {}
        for piece, grant in task.grants.open.items():
            by_host[grant.holder] = by_host.get(grant.holder, 0) | 1 << piece
            assert grant.holder in self.swarm.hosts
            assert grant.source is None or grant.source in self.swarm.hosts
            assert piece in self.swarm.hosts[grant.holder].grants
        assert by_host == task.grants.by_holder
        assert runs.of(task.grants.open) == task.grants.bits
        most = ALONE_BYTES // task.piece_size
        crowded = sum(1 for bits in by_host.values() if bits.bit_count() > OPEN_PER_HOST)
        assert crowded <= 1, "only who was alone may have many"
        assert all(bits.bit_count() <= most for bits in by_host.values())
        for source, window in task.grants.windows.items():
            used = sum(grant.source == source for grant in task.grants.open.values())
            assert window.used == used

    @invariant()
    def loads_are_right_and_within_limits(self) -> None:
        counted: dict[bytes, int] = {}
        for task in self.swarm.scheduler.tasks.values():
            for peer in task.peers:
                for parent in peer.parents:
                    counted[parent] = counted.get(parent, 0) + 1
        for host in self.swarm.scheduler.hosts.values():
            assert host.children == counted.get(host.id, 0)
            assert host.children <= LIMITS.load(host)
            assert host.state is not HostState.ASIDE or host.children == 0

    @invariant()
    def books_agree(self) -> None:
        task = self._task()
        if task is None:
            return
        union = 0
        for place, peer in enumerate(task.peers):
            assert peer.place == place
            assert task.by_host[peer.host.id] is peer
            assert peer.state is not PeerState.LEFT
            assert peer.held == self.swarm.hosts[peer.host.id].held
            assert peer.wanted == self.swarm.hosts[peer.host.id].wanted
            assert peer.urgent & ~peer.wanted == 0
            union |= peer.held if peer.shares else 0
            for piece in runs.numbers(peer.wanted):
                assert peer in task.wanters[piece]
        assert task.counted() == union
        assert task.wanted == runs.of(task.wanters)
        assert all(task.wanters.values())

    def teardown(self) -> None:
        """Whoever is left behaves from now on: everybody gets everything it waits for."""
        if not hasattr(self, "swarm"):
            return
        for _ in range(400):
            waiting = [host for host in self.swarm.hosts.values() if self._waits(host)]
            if not waiting:
                return
            for host in list(self.swarm.hosts.values()):
                while host.grants:
                    self.swarm.held(host, 1 << next(iter(host.grants)))
                self._follow_hints(host)
            self.swarm.wait(1.0)
            self._forget_expired()
        assert not waiting, "somebody waits for ever"

    def _waits(self, host: Told) -> bool:
        if not host.joined:
            return False
        if host.wanted:
            return True
        # bulk peers get from parents what those hold; here only what nobody holds is looked at
        others = 0
        for other in self.swarm.hosts.values():
            others |= other.held if other.uploads else 0
        return host.bulk and bool(((1 << PIECES) - 1) & ~(host.held | others))

    def _follow_hints(self, host: Told) -> None:
        for piece, holder in list(host.hints.items()):
            del host.hints[piece]
            other = self.swarm.hosts.get(holder)
            if other is not None and other.held >> piece & 1 and host.joined:
                self.swarm.held(host, 1 << piece)

    def _forget_expired(self) -> None:
        task = self._task()
        for host in self.swarm.hosts.values():
            for piece in list(host.grants):
                grant = task.grants.open.get(piece) if task else None
                if grant is None or grant.holder != host.id:
                    del host.grants[piece]

    def _pick(self, pick: int, joined: bool = True) -> Told | None:
        hosts = [host for host in self.swarm.hosts.values() if host.joined is joined]
        return hosts[pick % len(hosts)] if hosts else None

    def _task(self) -> Task | None:
        return self.swarm.scheduler.tasks.get((TASK, ""))


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
