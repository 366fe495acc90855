"""Digests of a file's pieces, from who read the origin to who only reads peers.

First come stays. Two digests of one piece mean two states of the origin under one validator: the
task is over. New digests are gathered for a moment before they go to everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import msgspec

from p2p import runs
from p2p.messages import Description, Origin, Pieces, Publish

from .resource import Task

FILE_PIECE = 1 << 20
"""Bytes of a piece of a file; the last is shorter."""
PER_MESSAGE = 1024
GATHERED_LEAST = 0.01
GATHERED_PER_PEER = 50e-6
"""Seconds: telling a peer costs the scheduler about as much, so it never does only that."""


@dataclass(slots=True)
class Digests:
    """What has been published, for all tasks of a scheduler."""

    states: dict[bytes, Origin] = field(default_factory=dict)
    """By task's name, what its origin says now."""
    due: float = float("inf")
    _news: dict[Task, float] = field(default_factory=dict)
    """Tasks with digests to pass on, and when."""

    def told(self, task: bytes, state: Origin) -> None:
        """Somebody read at the origin what its state is."""
        self.states[task] = state

    def described(self, task: bytes, description: Description) -> Description:
        """Return a description as the origin's known state makes it."""
        state = self.states[task]
        return msgspec.structs.replace(
            description,
            size=state.length,
            pieces=-(-state.length // FILE_PIECE),
            validator=state.validator,
        )

    def publish(self, task: Task, body: Publish, allowed: int, now: float) -> bool:
        """Take digests of the pieces *allowed*; return whether two contradict each other."""
        if not task.digests:
            task.digests = [None] * task.description.pieces
        conflict = False
        for piece, digest in enumerate(body.digests, body.first):
            known = task.digests[piece]
            if not allowed >> piece & 1:
                continue
            if known is None:
                task.digests[piece] = digest
                task.unsent |= 1 << piece
            else:
                conflict |= known != digest
        if task.unsent and task not in self._news:
            wait = max(GATHERED_LEAST, GATHERED_PER_PEER * len(task.peers))
            self._news[task] = now + wait
            self.due = min(self.due, now + wait)
        return conflict

    def known(self, task: Task, handle: int) -> Iterator[Pieces]:
        """Return what a newcomer is told."""
        bits = runs.of(n for n, digest in enumerate(task.digests) if digest is not None)
        for body in _messages(task, bits):
            yield body(handle)

    def taken(self, now: float) -> Iterator[tuple[Task, Callable[[int], Pieces]]]:
        """Return what is due to be told to everybody, by task, as a message for a handle."""
        if now < self.due:
            return
        for task in [task for task, when in self._news.items() if when <= now]:
            del self._news[task]
            bits, task.unsent = task.unsent, 0
            for body in _messages(task, bits):
                yield task, body
        self.due = min(self._news.values(), default=float("inf"))


def _messages(task: Task, bits: int) -> Iterator[Callable[[int], Pieces]]:
    flat = runs.encode(bits)
    for start, stop in zip(flat[::2], flat[1::2], strict=True):
        for first in range(start, stop, PER_MESSAGE):
            digests = [
                each for each in task.digests[first : min(stop, first + PER_MESSAGE)] if each
            ]
            yield partial(_pieces, first, digests)


def _pieces(first: int, digests: list[bytes], handle: int) -> Pieces:
    return Pieces(handle, first, digests)
