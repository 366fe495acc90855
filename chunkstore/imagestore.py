"""The image store: what a mounted image reads from, cache first, then the sources.

A read looks at the ready map and gets a view of the mapped cache file. What is missing is demanded
from the fetcher; when it has landed, the reader looks again.

Tasks: of the event loop. A view stays right until the task that looked awaits: the leases under it
are given back in the loop's next turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

import trio

from .blobcache import BlobCache
from .chunk import Blob, Chunk, Extent
from .demand import Demand
from .digest import Buffer, Digest
from .diskreads import DiskReads
from .errors import ChunkstoreError, Missing, Unreachable
from .fetcher import Ended, Fetcher, Reader
from .held import Held
from .keeper import Keeper
from .ledger import Fault, Ledger, Pulse
from .shelf import BlobShelf, OpenShelf, Shelf
from .source import ChunkSource
from .statistics import Statistics
from .views import Views
from .wanted import Key

WAITING_READS = 256
"""Reads that may wait while nothing moves; one more fails at once, and so do four times as many
however well things go: a filesystem has a bounded number of requests, for all its images."""

STALLED = 2.0
"""Seconds without a byte after which an image counts as not moving."""

INSISTING = 3
"""Rounds after which a reader takes copies: somebody evicts faster than it reads."""


class ImageStore:
    """One image's chunks: an ``ExtentReader`` over a cache and a source."""

    def __init__(  # noqa: PLR0913  # it is where all of an image's reading comes together
        self,
        cache: BlobCache,
        source: ChunkSource,
        *,
        owner: Digest,
        deadline: float,
        pulse: Pulse | None = None,
        ledger: Ledger | None = None,
        open_shelf: OpenShelf = Shelf,
    ) -> None:
        """Start nothing: ``run`` does.

        *owner* is the digest of the image's bootstrap. A read fails after *deadline* seconds in
        which nothing came for this image; *pulse* is beaten by the sources as bytes arrive.
        *open_shelf* opens what keeps a blob's chunks.
        """
        self._pulse = pulse or Pulse()
        self._ledger = ledger or Ledger()
        self._held = Held()
        self._views = Views(self._held)
        self._keeper = Keeper(cache, self._held, owner, open_shelf)
        self._fetcher = Fetcher(
            cache, self._views, self._keeper, source, deadline=deadline, pulse=self._pulse
        )
        self._threads = trio.CapacityLimiter(2)
        self._disk = DiskReads(self._views)
        self.source = source
        """Where chunks come from that are not here."""
        self.workers: int | None = None
        """Batches fetched side by side, None for as many as fill the link; set before ``run``."""
        self._waiting = 0
        self._waiting_since = 0.0
        self._refused = 0
        self._fault = Fault()

    def look(self, extents: Sequence[Extent]) -> Buffer | None:
        """Return the bytes of *extents* if all are in the cache; never waits long."""
        data = self._views.gather(extents, prompt=True)
        if data is not None:
            self._ledger.add("cache", chunks=len(extents), size=len(data))
        return data

    def has(self, extents: Sequence[Extent]) -> bool:
        """Say whether all of *extents* is here, in memory or not."""
        return not self._views.missing(extents, {})

    async def read(self, extents: Sequence[Extent]) -> Buffer:
        """Return the bytes of *extents*, fetching what is missing; raises ChunkstoreError."""
        data = self.look(extents)
        if data is None:
            data = self.lend(await self.from_disk(extents))
        if data is not None:
            return data
        try:
            self._admit()
            return await self._wait(extents)
        except ChunkstoreError as exc:
            self._refused += 1
            self._fault.note(str(exc))
            raise

    def hasten(self, blob: Blob, start: int, stop: int) -> None:
        """Have the disk begin to read decoded bytes of *blob* that will be asked for.

        What is not here is no harm, but work for nothing.
        """
        self._views.hasten(blob, start, stop)

    async def from_disk(self, extents: Sequence[Extent]) -> Buffer | None:
        """Return the bytes of *extents* if all are here, but not in memory; it may wait for them.

        They are the caller's until it has given them to `lend`, once.
        """
        if not self.has(extents):
            return None
        data = await self._disk.read(extents)
        if data is not None:
            self._ledger.add("cache", chunks=len(extents), size=len(data))
        return data

    def lend(self, data: Buffer | None) -> Buffer | None:
        """Return what ``from_disk`` gave, right until the calling task next awaits."""
        return self._views.lend(data)

    def held(
        self, extents: Sequence[Extent], *, paged_in: bool = True
    ) -> AbstractContextManager[Buffer | None]:
        """Lend the bytes of *extents*, None if not all are here, across awaits and to threads.

        What was not *paged_in* may only be handed to the kernel.
        """
        return self._views.held(extents, paged_in=paged_in)

    def let_go(self, extents: Sequence[Extent]) -> int:
        """Let the kernel drop its pages of the cache with *extents*, from any thread.

        Return how many bytes stayed: those that are not on the disk yet.
        """
        return self._views.let_go(extents)

    def want(self, blob: Blob, chunks: Sequence[Chunk]) -> int:
        """Fetch *chunks* behind what readers wait for; return how many there was room for."""
        return self._fetcher.want(blob, chunks)

    def expect(self, extents: Sequence[Extent], ended: Ended) -> bool:
        """Fetch what *extents* miss, behind readers, and tell *ended* once how that went.

        At once where all is here. False, and nothing is told, where there is no room for any.
        """
        missing = self._views.missing(extents, {})
        awaited = _Awaited(len(missing), ended)
        taken = 0
        for blob, chunk in missing.values():
            if not self._fetcher.expect(blob, chunk, awaited.one):
                break
            taken += 1
        if missing and not taken:
            return False
        for _ in range(len(missing) - taken):
            awaited.one(Missing("no room to fetch ahead"))
        if not missing:
            ended(None)
        return True

    async def put(self, blob: Blob, chunk: Chunk, data: Buffer) -> None:
        """Keep a chunk that came unasked, verified; raises Corrupt."""
        await self._fetcher.put(blob, chunk, data)

    def forget_ahead(self) -> None:
        """Let go of what is wanted ahead and not being fetched yet."""
        self._fetcher.forget_ahead()

    def distrust(self, extents: Sequence[Extent]) -> None:
        """Treat *extents* as missing: a view of them could not be read (EFAULT)."""
        for extent in extents:
            shelf = self._views.shelves.get(extent.blob.id) if extent.blob else None
            if shelf is not None and extent.chunk is not None:
                shelf.forget(extent.chunk)

    async def prepare(self, blobs: Iterable[Blob]) -> None:
        """Open *blobs* in the cache, so that looks find what is there."""
        for blob in blobs:
            await self._fetcher.shelf(blob)

    def shelf(self, blob: Blob) -> BlobShelf | None:
        """Return where *blob* is kept, if it has been opened; the store's own to close."""
        return self._views.shelves.get(blob.id)

    def statistics(self) -> Statistics:
        """Say what was read and fetched so far, and how things stand."""
        faults = self._fault, self._fetcher.fault, self._keeper.fault
        last = max(faults, key=lambda fault: fault.at)
        return Statistics(
            sources=self._ledger.tallies,
            ready_size=sum(
                file.map.ready_size()
                for shelf in self._views.shelves.values()
                for file in shelf.files
            ),
            held_size=self._held.size,
            waiting_reads=self._waiting,
            pending_chunks=self._fetcher.pending,
            refused_reads=self._refused,
            last_error=last.text,
            last_error_at=last.at,
        )

    @property
    def demand(self) -> Demand:
        """What readers wait for now, for a source that can hurry."""
        return self._fetcher.demand

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch what is asked for until cancelled; then the blobs are closed."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._disk.run)
                await self._fetcher.run(workers=self.workers, task_status=task_status)
                nursery.cancel_scope.cancel()
        finally:
            shelves = list(self._views.shelves.values())
            self._views.shelves.clear()
            self._views.give_back()
            with trio.CancelScope(shield=True):
                for shelf in shelves:
                    await trio.to_thread.run_sync(shelf.close, limiter=self._threads)

    async def _wait(self, extents: Sequence[Extent]) -> Buffer:
        self._waiting += 1
        try:
            return await self._read(extents)
        finally:
            self._waiting -= 1

    async def _read(self, extents: Sequence[Extent]) -> Buffer:
        kept: dict[Key, Buffer] = {}
        rounds = 0
        while True:
            missing = self._views.missing(extents, kept)
            if missing:
                rounds += 1
                reader = Reader(missing, insist=rounds >= INSISTING)
                await self._fetcher.bring(reader)
                kept.update(reader.kept)
                data = self._views.gather(extents, kept)
            else:  # all is here, but an evictor is at work
                data = self._views.lend(
                    await trio.to_thread.run_sync(
                        self._views.copy, extents, kept, limiter=self._threads
                    )
                )
                if data is None and not self._views.missing(extents, kept):
                    self.distrust(extents)  # the disk does not give them back
            if data is not None:
                return data

    def _admit(self) -> None:
        """See that a stalled image does not take all the requests that a filesystem has."""
        now = trio.current_time()
        if self._waiting == 0:
            self._waiting_since = now
        stalled = now - max(self._pulse.last, self._waiting_since) > STALLED
        if self._waiting >= (WAITING_READS if stalled else 4 * WAITING_READS):
            reason = self._fetcher.fault.text or "no answer yet"
            raise Unreachable(f"{self._waiting} reads wait already: {reason}")


class _Awaited:
    """Chunks that are expected together, and who is told when the last has come."""

    def __init__(self, left: int, ended: Ended) -> None:
        self._left = left
        self._ended = ended
        self._failure: ChunkstoreError | None = None

    def one(self, failure: ChunkstoreError | None) -> None:
        self._left -= 1
        self._failure = self._failure or failure
        if not self._left:
            self._ended(self._failure)
