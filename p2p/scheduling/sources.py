"""Who a granted piece is taken from: the seed whose shard it is in, or the origin."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2p import rendezvous, runs

from .resource import Host, Peer, Task

AHEAD = 4096
"""Pieces whose seeds are worked out at a time: 10 ms with two seeds."""

BACK_OFF_FIRST, BACK_OFF_MOST = 5.0, 300.0
"""Seconds for which a seed that fails a task is not asked for it."""

WITNESSES = 2
"""So many have to have got nothing from a seed before it is asked by nobody; or all there are."""
DOUBT_LASTS = 60.0


@dataclass(slots=True)
class _Shards:
    seeds: tuple[bytes, ...]
    stop: int = 0
    owned: dict[bytes, int] = field(default_factory=dict)


@dataclass(slots=True)
class Sources:
    """The seeds, and how they share the pieces of each task."""

    seeds: dict[bytes, Host] = field(default_factory=dict)
    _shards: dict[bytes, _Shards] = field(default_factory=dict)

    def of(self, task: Task, now: float) -> tuple[bytes, ...]:
        """Return the seeds that may be asked for a task now; none: the origin has to be."""
        return tuple(
            host.id
            for host in self.seeds.values()
            if host.uploads and task.failing.get(host.id, (0.0, 0.0))[0] <= now
        )

    def shard(self, task: Task, seeds: tuple[bytes, ...], free: int) -> dict[bytes | None, int]:
        """Split the next of the pieces *free* among the sources."""
        if not seeds:
            return {None: free}
        if len(seeds) == 1:
            return {seeds[0]: free}
        shards = self._upto(task, seeds, runs.first(free) + 1)
        return {seed: free & owned for seed, owned in shards.owned.items() if free & owned}

    def owner(self, task: Task, seeds: tuple[bytes, ...], piece: int) -> bytes | None:
        """Return the source of one piece."""
        if len(seeds) < 2:
            return seeds[0] if seeds else None
        shards = self._upto(task, seeds, piece + 1)
        return next(seed for seed, owned in shards.owned.items() if owned >> piece & 1)

    def failed(self, peer: Peer, seed: bytes, now: float) -> None:
        """Weigh that a peer got nothing from a seed.

        It is not sent there for a while itself; nobody is when others say so too, for longer each
        time.
        """
        task = peer.task
        peer.returned[seed] = now + BACK_OFF_FIRST
        doubts = task.doubted.setdefault(seed, {})
        for witness in [each for each, when in doubts.items() if now - when > DOUBT_LASTS]:
            del doubts[witness]
        doubts[peer.host.witness] = now
        if len(doubts) < WITNESSES and not self._is_alone(peer):
            return
        del task.doubted[seed]
        _, last = task.failing.get(seed, (0.0, BACK_OFF_FIRST / 2))
        wait = min(BACK_OFF_MOST, 2 * last)
        task.failing[seed] = now + wait, wait

    @staticmethod
    def _is_alone(peer: Peer) -> bool:
        """Whether nobody but one witness takes part."""
        mine = peer.host.witness
        return all(
            each.host.witness == mine for each in peer.task.peers if each.host.kind != "seed"
        )

    def forget(self, task: Task) -> None:
        """Drop what was worked out for a task."""
        self._shards.pop(task.id, None)

    def _upto(self, task: Task, seeds: tuple[bytes, ...], stop: int) -> _Shards:
        shards = self._shards.get(task.id)
        if shards is None or shards.seeds != seeds:
            shards = self._shards[task.id] = _Shards(seeds)
        while shards.stop < stop:
            upto = shards.stop + AHEAD
            for seed, bits in rendezvous.shards(seeds, shards.stop, upto).items():
                shards.owned[seed] = shards.owned.get(seed, 0) | bits
            shards.stop = upto
        return shards
