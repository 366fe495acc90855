"""What is wanted: which chunks to fetch next, those that a reader waits for first.

Pure: no clock, no I/O. A chunk is pending or in flight, never both, and in flight once. Batches are
runs of chunks that lie next to each other in the stored blob, so that one request can bring them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .chunk import Blob, Chunk
from .spans import adjacent

Key = tuple[str, int, bytes, int, int]
"""Names a chunk of a blob by all that a reader relies on."""


@dataclass(slots=True)
class _Pending:
    blob: Blob
    chunk: Chunk


def key_of(blob: Blob, chunk: Chunk) -> Key:
    """Return *chunk*'s name."""
    return (blob.id, chunk.index, chunk.digest.raw, chunk.offset, chunk.size)


class Wanted:
    """The chunks of one image that are to be fetched."""

    def __init__(self, *, ahead_size: int) -> None:
        """Bound what is wanted ahead to *ahead_size* bytes."""
        self._ahead_room = ahead_size
        self._demanded: dict[Key, _Pending] = {}
        """In the order of demand."""
        self._ahead: dict[Key, _Pending] = {}
        """In the order of wanting; a demand moves it."""
        self._places: dict[tuple[str, int], Key] = {}
        """Pending chunks by blob and index, to find neighbours."""
        self._flying: set[Key] = set()

    def demand(self, blob: Blob, chunk: Chunk) -> bool:
        """Put *chunk* among those that a reader waits for; False where it is in flight already."""
        key = key_of(blob, chunk)
        if key in self._flying or key in self._demanded:
            return key not in self._flying
        self._drop_ahead(key)
        self._demanded[key] = _Pending(blob, chunk)
        self._places[blob.id, chunk.index] = key
        return True

    def want(self, blob: Blob, chunk: Chunk) -> bool:
        """Put *chunk* among those wanted ahead of readers; False where there are too many."""
        key = key_of(blob, chunk)
        if key in self._flying or key in self._demanded or key in self._ahead:
            return True
        if chunk.size > self._ahead_room:
            return False
        self._ahead_room -= chunk.size
        self._ahead[key] = _Pending(blob, chunk)
        self._places[blob.id, chunk.index] = key
        return True

    def withdraw(self, key: Key) -> None:
        """Note that nobody waits for the chunk any more; in flight it goes on."""
        if self._demanded.pop(key, None) is not None:
            self._places.pop(key[:2], None)

    def take(
        self, batch_size: int, *, demanded_only: bool = False
    ) -> tuple[Blob, Sequence[Chunk]] | None:
        """Return the next batch, of at most *batch_size* stored bytes, or of one chunk.

        It is in flight from now on. None when there is none.
        """
        queue = self._demanded or ({} if demanded_only else self._ahead)
        first = next(iter(queue.values()), None)
        if first is None:
            return None
        run = self._run(first, batch_size)
        for pending in run:
            self._launch(key_of(pending.blob, pending.chunk))
        return first.blob, [pending.chunk for pending in run]

    def landed(self, key: Key) -> None:
        """Note that the chunk is no longer in flight, however that ended."""
        self._flying.discard(key)

    def clear_ahead(self) -> Sequence[Key]:
        """Forget what was wanted ahead and is not in flight; return what that was."""
        forgotten = list(self._ahead)
        for key in forgotten:
            self._drop_ahead(key)
            self._places.pop(key[:2], None)
        return forgotten

    def has(self, key: Key) -> bool:
        """Say whether the chunk is pending or in flight."""
        return key in self._flying or key in self._demanded or key in self._ahead

    @property
    def pending(self) -> int:
        """Chunks that are not in flight yet."""
        return len(self._demanded) + len(self._ahead)

    def _run(self, first: _Pending, batch_size: int) -> list[_Pending]:
        """Return *first* and what follows it in the stored blob, of at most *batch_size*."""
        run, size = [first], first.chunk.stored_size
        while (after := self._following(run[-1])) is not None:
            size += after.chunk.stored_stop - run[-1].chunk.stored_stop
            if size > batch_size:
                break
            run.append(after)
        return run

    def _following(self, pending: _Pending) -> _Pending | None:
        key = self._places.get((pending.blob.id, pending.chunk.index + 1))
        if key is None:
            return None
        after = self._demanded.get(key) or self._ahead.get(key)
        return after if after is not None and adjacent(pending.chunk, after.chunk) else None

    def _launch(self, key: Key) -> None:
        if self._demanded.pop(key, None) is None:
            self._drop_ahead(key)
        self._places.pop(key[:2], None)
        self._flying.add(key)

    def _drop_ahead(self, key: Key) -> None:
        pending = self._ahead.pop(key, None)
        if pending is not None:
            self._ahead_room += pending.chunk.size
