"""Packer: what a source hands its files' data to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from chunkstore import Buffer

from .ordered import Ordered
from .packing import Packed, Rules, pack
from .stock import Stock
from .tree import Node

Advance = Callable[[int], None]
"""Told how many bytes of file data are packed."""


WINDOW = 24 << 20
"""Bytes of file data on their way through the threads: some for every core to go on with while the
slowest chunk of 1 MiB is at it."""


class Packer:
    """Takes files' data in order, packs it on threads, and fills in the nodes' chunks."""

    def __init__(
        self, rules: Rules, stock: Stock, ordered: Ordered[Packed], folder: Path, advance: Advance
    ) -> None:
        self.chunk_size = rules.chunk_size
        self.rules = replace(rules, known=stock)
        self.folder = folder
        """Where a source may put what it must keep for a while."""
        self.size = 0
        """Bytes of file data taken so far."""
        self._advanced = advance
        self._zeros: dict[int, Packed] = {}
        self._stock = stock
        self._ordered = ordered

    def run(self, job: Callable[[], Packed], nodes: Sequence[Node], cost: int) -> None:
        """Have *job* run on some thread; the chunks it makes belong to *nodes*, one to each.

        *cost* bytes are held in memory until then. Raises what earlier jobs raised.
        """
        self._ordered.run(job, lambda packed: self._take(packed, nodes), cost)

    def add(self, pieces: Sequence[Buffer], nodes: Sequence[Node]) -> None:
        """Pack *pieces*, each a whole chunk of its node."""
        rules = self.rules
        self.run(lambda: pack(pieces, rules), nodes, sum(map(len, pieces)))

    def drain(self) -> None:
        """Wait until all that was handed in is packed; raises what it raised."""
        self._ordered.drain()

    def zeros(self, node: Node, size: int) -> None:
        """Give *node* *size* bytes of zeros, which cost next to nothing."""
        whole, rest = divmod(size, self.chunk_size)
        if whole:
            self._repeat(node, self.chunk_size, whole)
        if rest:
            self._repeat(node, rest, 1)

    def _repeat(self, node: Node, size: int, count: int) -> None:
        packed = self._zeros.get(size)
        if packed is None:
            packed = self._zeros[size] = pack([bytes(size)], self.rules)
        self._ordered.run(lambda: packed, lambda one: self._take_same(one, node, count), 0)

    def _take(self, packed: Packed, nodes: Sequence[Node]) -> None:
        for node, number in zip(nodes, self._stock.place(packed), strict=True):
            node.chunks.append(number)
        self._advance(sum(packed.sizes))

    def _take_same(self, packed: Packed, node: Node, count: int) -> None:
        node.chunks.extend(self._stock.place(packed) * count)
        self._stock.shared += packed.sizes[0] * (count - 1)
        self._advance(packed.sizes[0] * count)

    def _advance(self, size: int) -> None:
        self.size += size
        self._advanced(self.size)
