"""What a program reads when it starts: a few readers, one thing after the other."""

from __future__ import annotations

from collections import deque
from random import Random

from .scenario import Group

SPREAD = 0.5
"""How much longer or shorter than usual a reader thinks, at most."""


class Program:
    """The reads of one host; who reads waits for all pieces of a read, then thinks."""

    def __init__(self, group: Group, count: int, common: Random, own: Random) -> None:
        """Draw which pieces of *count* are read from *common*, and what differs from *own*."""
        self._think = group.think
        self._own = own
        self._left = deque(_mixed(_reads(group, count, common), group.astray, own))
        listed = [piece for read in self._left for piece in read]
        self.listed = listed[: round(len(listed) * group.listed)]
        """Pieces that are fetched ahead from the beginning."""
        self._readers: list[set[int]] = []
        """What each that waits is waiting for."""
        self._thinking = 0

    @property
    def over(self) -> bool:
        """Whether all was read."""
        return not (self._left or self._readers or self._thinking)

    def read(self, held: int) -> set[int]:
        """Let a reader go on; return what it waits for, nothing where it came to the end."""
        while self._left:
            missing = {piece for piece in self._left.popleft() if not held >> piece & 1}
            if missing:
                self._readers.append(missing)
                return set(missing)
        return set()

    def came(self, piece: int) -> list[float]:
        """Note that a piece came; return for how long each reader thinks that waits no longer."""
        served = []
        for waiting in self._readers:
            waiting.discard(piece)
            if not waiting:
                served.append(self._think * (1 - SPREAD + 2 * SPREAD * self._own.random()))
        self._readers = [waiting for waiting in self._readers if waiting]
        self._thinking += len(served)
        return served

    def thought(self) -> None:
        """Note that a reader thinks no longer."""
        self._thinking -= 1


def _reads(group: Group, count: int, common: Random) -> list[range]:
    """Return what is read, in order: pieces that lie together, here and there."""
    places = -(-count // group.together)
    chosen = common.sample(range(places), max(1, round(places * group.lazy)))
    if not group.alike:
        chosen.sort()
    starts = [place * group.together for place in chosen]
    return [range(start, min(count, start + group.together)) for start in starts]


def _mixed(reads: list[range], astray: float, own: Random) -> list[range]:
    """Return reads with some of them in the other order than the next."""
    for index in range(len(reads) - 1):
        if astray and own.random() < astray:
            reads[index], reads[index + 1] = reads[index + 1], reads[index]
    return reads
