"""Who a granted piece is taken from: the seed whose shard it is in, or the origin."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import rendezvous, runs
from .resource import Host, Task

AHEAD = 4096
"""Pieces whose seeds are worked out at a time: 10 ms with two seeds."""

BACK_OFF_FIRST, BACK_OFF_MOST = 5.0, 300.0
"""Seconds for which a seed that fails a task is not asked for it."""


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

    def failed(self, task: Task, seed: bytes, now: float) -> None:
        """Do not ask a seed for a task for a while, for longer each time."""
        _, last = task.failing.get(seed, (0.0, BACK_OFF_FIRST / 2))
        wait = min(BACK_OFF_MOST, 2 * last)
        task.failing[seed] = now + wait, wait

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
