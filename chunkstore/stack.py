"""Chunk sources made of chunk sources: each adds one thing and has the same Protocol.

``repr`` nests, so that a log shows the stack: ``FirstOf(Verified(Peers), Verified(OriginChunks))``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from .chunk import Blob, Chunk
from .digest import Buffer
from .errors import ChunkstoreError, Corrupt, Missing
from .ledger import Ledger
from .shelf import check
from .source import ChunkSource, Deliver

HASHED_IN_THREAD = (1 << 20) + 1
"""Bytes from which hashing goes to a thread: BLAKE3 takes 170 µs per MiB, handing over 100 µs."""

PENALTY = 60.0
"""Seconds for which a source that gave corrupt bytes is asked last."""


class Verified:
    """A source whose chunks match their digests, or are not delivered: it raises Corrupt."""

    def __init__(self, source: ChunkSource) -> None:
        self._source = source

    async def fetch(self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver) -> None:
        """Deliver what verifies; a source may go on with other chunks after a corrupt one."""

        async def pass_on(chunk: Chunk, data: Buffer) -> None:
            if len(data) < HASHED_IN_THREAD:
                check(chunk, data)
            else:
                await trio.to_thread.run_sync(check, chunk, data)
            await deliver(chunk, data)

        await self._source.fetch(blob, chunks, pass_on)

    def __repr__(self) -> str:
        return f"Verified({self._source!r})"


class FirstOf:
    """Sources asked one after the other for what is still missing.

    One whose bytes were corrupt is asked last for a while. That may be noticed by a ``Verified``
    below or by *deliver* above: both raise Corrupt through the source.
    """

    def __init__(
        self,
        *sources: ChunkSource,
        penalty: float = PENALTY,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._sources = sources
        self._penalty = penalty
        self._clock = clock
        self._last_until = [0.0] * len(sources)
        """When each source's penalty ends."""

    async def fetch(self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver) -> None:
        """Deliver *chunks* from wherever they are; raises what the last asked source said."""
        missing = dict.fromkeys(chunks)

        async def note(chunk: Chunk, data: Buffer) -> None:
            await deliver(chunk, data)
            missing.pop(chunk, None)

        failure: ChunkstoreError = Missing(f"blob {blob.id}: no source")
        for number in self._order():
            try:
                await self._sources[number].fetch(blob, list(missing), note)
            except ChunkstoreError as exc:
                failure = _with_cause(exc, failure)
                if isinstance(exc, Corrupt):
                    self._last_until[number] = self._clock() + self._penalty
            if not missing:
                return
        raise failure

    def _order(self) -> list[int]:
        now = self._clock()
        return sorted(range(len(self._sources)), key=lambda number: self._last_until[number] > now)

    def __repr__(self) -> str:
        return f"FirstOf({', '.join(map(repr, self._sources))})"


class Limited:
    """A source with a bound on the fetches under way in it."""

    def __init__(self, source: ChunkSource, width: int) -> None:
        self._source = source
        self._width = width
        self._places = trio.Semaphore(width)

    async def fetch(self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver) -> None:
        """Wait for a place, then deliver."""
        async with self._places:
            await self._source.fetch(blob, chunks, deliver)

    def __repr__(self) -> str:
        return f"Limited({self._source!r}, {self._width})"


class Counted:
    """A source whose deliveries are written into a ledger under a name."""

    def __init__(self, source: ChunkSource, name: str, ledger: Ledger) -> None:
        self._source = source
        self._name = name
        self._ledger = ledger

    async def fetch(self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver) -> None:
        """Deliver, counting what was taken."""

        async def count(chunk: Chunk, data: Buffer) -> None:
            await deliver(chunk, data)
            self._ledger.add(self._name, chunks=1, size=chunk.size)

        await self._source.fetch(blob, chunks, count)

    def __repr__(self) -> str:
        return f"Counted({self._source!r}, {self._name!r})"


def _with_cause(failure: ChunkstoreError, before: ChunkstoreError) -> ChunkstoreError:
    """Keep what an earlier source said as the cause of the later failure."""
    if failure.__cause__ is None and before is not failure:
        failure.__cause__ = before
    return failure
