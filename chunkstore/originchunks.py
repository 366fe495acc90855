"""Chunks out of an origin: ranges of stored blobs, decoded as they come in.

Chunks whose stored bytes lie next to each other come in one range, a few ranges side by side. A
chunk is decoded and delivered as soon as its last byte is there, while the range goes on arriving
into the same buffer; buffers are in huge pages and kept, because fresh ones must be cleared first.

Tasks: ``fetch`` opens one nursery; per range there is a reading task, and the delivering one that
waits for it, or one for both where a range is decoded as a whole. Between ``_Arrival.upto`` and its
next await a waiting task relies on the callback.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from .chunk import Blob, Chunk, Codec
from .codec import decode, slice_of
from .digest import Buffer
from .errors import ChunkstoreError, Corrupt, Unreachable
from .hugepages import Room, room
from .ledger import Ledger, Pulse
from .source import Deliver, Origin
from .spans import Span, Unit, possible, spans

SPAN_SIZE = 8 << 20
"""Bytes of one range: large enough that the request costs nothing, small enough to keep a few."""

WIDTH = 9
"""Ranges side by side at most; how many are worth asking for, the fetcher finds out."""

DECODED_IN_THREAD = (1 << 20) + 1
"""Decoded bytes from which a unit goes to a thread. At 1 MiB cold reads of LZ4 and zstd chunks were
a fifth faster in the event loop, at 256 KiB twice as fast [2 cores, loopback HTTP]."""


class OriginChunks:
    """A chunk source that reads an origin. What it delivers is decoded, not verified."""

    def __init__(
        self,
        origin: Origin,
        *,
        width: int = WIDTH,
        span_size: int = SPAN_SIZE,
        pulse: Pulse | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._origin = origin
        self._span_size = span_size
        self._places = trio.Semaphore(width)
        self._threads = trio.CapacityLimiter(width)
        self._pulse = pulse or Pulse()
        self._ledger = ledger or Ledger()
        self._kept: list[Room] = []
        """At most *width* buffers of *span_size* bytes, not in use."""
        self._width = width

    async def fetch(self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver) -> None:
        """Deliver *chunks*; raises the worst of what kept some from coming, after trying all."""
        failures: list[ChunkstoreError] = [
            Corrupt(f"chunk {chunk.index}: {chunk.stored_size} stored bytes for {chunk.size}")
            for chunk in chunks
            if not possible(chunk)
        ]

        async def bring(span: Span) -> None:
            async with self._places:
                failures.extend(await self._bring(blob, span, deliver))

        parts = spans([chunk for chunk in chunks if possible(chunk)], self._span_size)
        if len(parts) == 1:
            await bring(parts[0])
        else:
            async with trio.open_nursery() as nursery:
                for span in parts:
                    nursery.start_soon(bring, span)
        if failures:
            raise min(failures, key=lambda failure: isinstance(failure, Corrupt))

    async def _bring(self, blob: Blob, span: Span, deliver: Deliver) -> list[ChunkstoreError]:
        """Read one range and deliver its chunks; return what went wrong."""
        size = span.stop - span.start
        buffer = self._borrow(size)
        arrival = _Arrival(self._pulse, self._ledger)
        failures: list[ChunkstoreError] = []
        try:
            with memoryview(buffer)[:size] as view:
                if len(span.units) == 1:  # nothing to do meanwhile, so no need of a task
                    await self._read(blob.id, span.start, view, arrival)
                    await self._take(blob, span, view, arrival, deliver, failures)
                else:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._read, blob.id, span.start, view, arrival)
                        await self._take(blob, span, view, arrival, deliver, failures)
        finally:
            self._ledger.add("origin", failures=bool(failures))
            if isinstance(buffer, Room) and len(self._kept) < self._width:
                self._kept.append(buffer)
        return failures

    async def _take(
        self,
        blob: Blob,
        span: Span,
        view: memoryview,
        arrival: _Arrival,
        deliver: Deliver,
        failures: list[ChunkstoreError],
    ) -> None:
        """Deliver the chunks of a range as it comes."""
        for unit in span.units:
            if not await arrival.upto(unit.stop - span.start):
                failures.append(arrival.failure or _cut(blob, unit))
                break
            with view[unit.start - span.start : unit.stop - span.start] as stored:
                await self._deliver(unit, stored, deliver, failures)

    async def _read(self, blob_id: str, start: int, into: memoryview, arrival: _Arrival) -> None:
        try:
            await self._origin.read(blob_id, start, into, arrival.tell)
        except ChunkstoreError as exc:
            arrival.failure = exc
        arrival.end()

    async def _deliver(
        self, unit: Unit, stored: memoryview, deliver: Deliver, failures: list[ChunkstoreError]
    ) -> None:
        """Decode one unit and deliver its chunks; one that is corrupt does not stop the others."""
        try:
            plain = await self._decode(unit, stored)
        except Corrupt as exc:
            failures.append(exc)
            return
        for chunk in unit.chunks:
            try:
                await deliver(chunk, slice_of(chunk, plain))
            except ChunkstoreError as exc:
                failures.append(exc)

    async def _decode(self, unit: Unit, stored: memoryview) -> Buffer:
        if unit.codec is Codec.NONE or unit.size < DECODED_IN_THREAD:
            return decode(unit.codec, stored, unit.size)
        return await trio.to_thread.run_sync(
            decode, unit.codec, stored, unit.size, limiter=self._threads
        )

    def _borrow(self, size: int) -> Room | bytearray:
        if size > self._span_size:
            return bytearray(size)
        return self._kept.pop() if self._kept else room(self._span_size)

    def __repr__(self) -> str:
        return f"OriginChunks({self._origin!r})"


class _Arrival:
    """How far a range has come, told by an origin and waited for by one task."""

    def __init__(self, pulse: Pulse, ledger: Ledger) -> None:
        self._ledger = ledger
        self.count = 0
        self.failure: ChunkstoreError | None = None
        self._ended = False
        self._moved = trio.Event()
        self._awaited = 0
        self._pulse = pulse

    def tell(self, count: int) -> None:
        self._ledger.add("origin", stored_size=count - self.count)
        self.count = count
        self._pulse.beat(trio.current_time())
        if count >= self._awaited:
            self._moved.set()

    def end(self) -> None:
        self._ended = True
        self._moved.set()

    async def upto(self, count: int) -> bool:
        """Wait until *count* bytes are in place; False if they never will be."""
        while self.count < count and not self._ended:
            self._awaited = count
            self._moved = trio.Event()
            await self._moved.wait()
        return self.count >= count


def _cut(blob: Blob, unit: Unit) -> ChunkstoreError:
    return Unreachable(f"blob {blob.id}: no bytes up to {unit.stop}, and no reason given")
