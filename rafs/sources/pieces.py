"""Pieces: chunks of files that come one after the other, gathered for the packer's tasks."""

from __future__ import annotations

from collections.abc import Iterable

from chunkstore import Buffer
from rafs.packer import Packer
from rafs.tree import Node

BATCH_BYTES, BATCH_PIECES = 1 << 20, 256
"""How much small data goes to one task."""


class Pieces:
    """Chunks of small files gathered for one task."""

    def __init__(self, packer: Packer) -> None:
        self._packer = packer
        self._pieces: list[Buffer] = []
        self._nodes: list[Node] = []
        self._size = 0

    def add_all(self, node: Node, pieces: Iterable[Buffer | int]) -> None:
        """Give *node* its chunks, or holes of some bytes."""
        for piece in pieces:
            if isinstance(piece, int):
                self.flush()
                self._packer.zeros(node, piece)
                continue
            self._pieces.append(piece)
            self._nodes.append(node)
            self._size += len(piece)
            if self._size >= BATCH_BYTES or len(self._pieces) == BATCH_PIECES:
                self.flush()

    def flush(self) -> None:
        """Start a task with what there is."""
        if self._pieces:
            self._packer.add(self._pieces, self._nodes)
            self._pieces, self._nodes, self._size = [], [], 0
