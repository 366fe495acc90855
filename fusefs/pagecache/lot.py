"""Lot: bytes of the cache on their way into the kernel's page cache.

Tasks: a lot is filled in the event loop, and pushed in a thread that may outlive whoever sent it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import pyfuse3

from chunkstore import Buffer, Missing
from fusefs.vfs import Vfs

Store = Callable[[int, int, Buffer], None]
"""Puts bytes at a place of an inode into the page cache; raises OSError. May wait."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Bytes of the cache on their way to the kernel."""

    node: int
    start: int
    data: Buffer

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.data)


class Lot:
    """Pieces that are pushed at once, and what they were borrowed from.

    A thread may outlive the task that sent it, so whoever comes first gives back: the thread that
    has begun, or the task whose thread never did.
    """

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self._loans = ExitStack()
        self._lock = threading.Lock()
        self._taken = False

    def borrow(self, vfs: Vfs, node: int, start: int, stop: int) -> None:
        """Add a range of a file; raises Missing where it is not all here."""
        data = self._loans.enter_context(vfs.held(node, start, stop))
        if data is None:
            raise Missing("evicted before it was pushed")
        self.pieces.append(Piece(node, start, data))

    def push(self, store: Store) -> Mapping[Piece, OSError]:
        """Push all, in a thread, and give back; return why some of it could not be."""
        failures: dict[Piece, OSError] = {}
        if not self._take():
            return failures
        with self._loans:
            for piece in self.pieces:
                try:
                    store(piece.node, piece.start, piece.data)
                except OSError as exc:
                    failures[piece] = exc
        return failures

    def close(self) -> None:
        """Give back what no thread has taken."""
        if self._take():
            self._loans.close()

    def _take(self) -> bool:
        with self._lock:
            taken, self._taken = self._taken, True
        return not taken


def notify_store(node: int, start: int, data: Buffer) -> None:
    """Be a `Store` of the kernel's."""
    pyfuse3.notify_store(node, start, data)  # type: ignore[arg-type]  # it takes any buffer
