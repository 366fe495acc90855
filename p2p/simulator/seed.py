"""A virtual seed peer: gets what it lacks from the origin."""

from __future__ import annotations

from collections import deque

from p2p import runs

from .links import Upload
from .scenario import Group
from .uploader import Net, Uploader
from .world import World


class Seed(Uploader):
    """A seed peer."""

    __slots__ = ("_held", "_reading", "_reads", "_wanted")
    kind = "seed"

    def __init__(self, world: World, net: Net, index: int, group: Group) -> None:
        super().__init__(world, net, index, group)
        self.slots = world.scenario.policy.seed_uploads
        self._held = runs.full(world.count) if world.scenario.seeds.warm else 0
        self._wanted: dict[int, list[Upload]] = {}
        self._reads: deque[int] = deque()
        self._reading = 0

    @property
    def held(self) -> int:
        """The pieces that are here."""
        return self._held

    def lacks(self, upload: Upload) -> None:
        """Get it from the origin first."""
        waiting = self._wanted.get(upload.piece)
        if waiting is None:
            self._wanted[upload.piece] = [upload]
            self._reads.append(upload.piece)
            self._read_on()
        else:
            waiting.append(upload)

    def read(self, piece: int) -> None:
        """Get a piece from the origin."""
        if self.dead:
            return
        self._held |= 1 << piece
        self._reading -= 1
        self._read_on()
        self.gained(piece)
        for upload in self._wanted.pop(piece, ()):
            if not upload.gone:
                self.enqueue(upload)

    def _read_on(self) -> None:
        while self._reads and self._reading < self.world.scenario.policy.reads:
            self._reading += 1
            self.net.read(self, self._reads.popleft())
