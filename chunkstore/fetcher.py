"""The fetcher: brings the chunks that readers wait for into the cache, then those wanted ahead.

A chunk is demanded once however many readers wait for it. Workers take runs of chunks, look again
whether they are here by now, see that no other store of this process is fetching them, and hand
them to the source; as each is delivered it is verified and kept, and its readers are woken.

Tasks: ``run`` owns the workers, the evictor and the watchdog. Readers wait in their own tasks and
own nothing, so a cancelled one leaves the chunk to the others. ``_waiting``, ``_wanted`` and the
flights change only between awaits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import trio

from .blobcache import BlobCache
from .chunk import Blob, Chunk
from .demand import Demand
from .digest import Buffer
from .errors import ChunkstoreError, Corrupt, Missing, Unreachable
from .givenup import GivenUp
from .keeper import Keeper
from .ledger import Fault, Pulse
from .shelf import BlobShelf
from .source import ChunkSource, Deliver
from .views import Views
from .wanted import Key, Wanted, key_of
from .width import MOST, Width

logger = logging.getLogger(__name__)

WORKERS = 1 + MOST
"""Fetches side by side where nobody says otherwise. One is kept for what a reader waits for; how
many of the others may work ahead of readers, `width` says."""

AHEAD_SIZE = 64 << 20
"""Decoded bytes that may be wanted ahead of readers; more is not taken."""

Ended = Callable[[ChunkstoreError | None], None]
"""Told that a chunk is here, or why it cannot be had; never awaits."""

FOLLOWING = 2.0
"""Seconds to leave a chunk to another image's store: its origin may hang, ours may not."""


class Reader:
    """One read that waits for chunks."""

    def __init__(self, missing: Mapping[Key, tuple[Blob, Chunk]], *, insist: bool) -> None:
        self.missing = dict(missing)
        self.insist = insist
        """It takes a copy even of what the cache keeps: somebody evicts faster than it reads."""
        self.late: set[Key] = set()
        """Chunks that were in flight already; if that fails, it was not for this reader's time."""
        self.kept: dict[Key, Buffer] = {}
        """Bytes that the cache does not keep."""
        self.failure: ChunkstoreError | None = None
        self.moved = trio.Event()

    def landed(self, key: Key, data: Buffer | None) -> None:
        """Note that a chunk is in the cache, or that *data* holds it."""
        self.missing.pop(key, None)
        if data is not None:
            self.kept[key] = data
        if not self.missing:
            self.moved.set()

    def failed(self, failure: ChunkstoreError) -> None:
        """Note that a chunk cannot be had."""
        self.failure = failure
        self.moved.set()


class Fetcher:
    """Fetches one image's chunks."""

    def __init__(
        self,
        cache: BlobCache,
        views: Views,
        keeper: Keeper,
        source: ChunkSource,
        *,
        deadline: float,
        pulse: Pulse,
    ) -> None:
        self._flights = cache.flights
        self._views = views
        self._keeper = keeper
        self._source = source
        self._deadline = deadline
        self._pulse = pulse
        self._wanted = Wanted(ahead_size=AHEAD_SIZE)
        self._waiting: dict[Key, list[Reader]] = {}
        self._busy = 0
        """Workers that are fetching."""
        self._expecting: dict[Key, list[Ended]] = {}
        """Who is told when a chunk that was wanted ahead has landed."""
        self._width = Width()
        self._impatient: set[Key] = set()
        """Chunks that another store has had in hand for too long."""
        self._fetches: dict[trio.CancelScope, float] = {}
        """What is asked of the source now, with the time it was asked."""
        self._given_up = GivenUp()
        self._idle = trio.lowlevel.ParkingLot()
        self._opening = trio.Lock()
        self._nursery: trio.Nursery | None = None
        self.fault = Fault()
        self.demand = Demand()
        """What readers wait for."""

    async def run(
        self,
        *,
        workers: int | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Fetch what is asked for until cancelled; readers that still wait then fail.

        As many *workers* work side by side, or as many as fill the link.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for _ in range(workers or WORKERS):
                    nursery.start_soon(self._work, workers)
                nursery.start_soon(self._keeper.run)
                nursery.start_soon(self._views.doubles.run)
                nursery.start_soon(self._watch)
                task_status.started()
        finally:
            self._nursery = None
            for key in [*self._waiting, *self._expecting]:
                self._failed(key, Unreachable("the image is being closed"))

    async def bring(self, reader: Reader) -> None:
        """Wait until what *reader* misses has landed; raises ChunkstoreError."""
        if self._nursery is None:
            raise Unreachable("the image is not being served")
        missing, since = dict(reader.missing), trio.current_time()
        failure = self._given_up.find(missing, since)
        if failure is not None:
            raise failure
        for key, (blob, chunk) in missing.items():
            self._waiting.setdefault(key, []).append(reader)
            if not self._wanted.demand(blob, chunk):
                reader.late.add(key)
        self.demand.add(missing)
        self._idle.unpark()  # one worker; it wakes the others if there is more than it takes
        try:
            await self._patiently(reader)
        except Unreachable as exc:
            if trio.current_time() - since > self._deadline / 2:
                self._given_up.note(reader.missing, exc, trio.current_time())
            raise
        finally:
            for key in missing:
                self._leave(key, reader)

    def want(self, blob: Blob, chunks: Sequence[Chunk]) -> int:
        """Fetch *chunks* ahead of readers; return how many were taken, the first ones."""
        shelf = self._views.shelves.get(blob.id)
        taken = 0
        for chunk in chunks:
            here = shelf is not None and shelf.find(chunk) is not None
            if not here and not self._wanted.want(blob, chunk):
                break
            taken += 1
        self._idle.unpark_all()
        return taken

    def expect(self, blob: Blob, chunk: Chunk, ended: Ended) -> bool:
        """Fetch *chunk* ahead of readers and tell *ended* once; False where there is no room.

        When it was told that the chunk is here, it must still look: it may be gone again.
        """
        if self._nursery is None or not self._wanted.want(blob, chunk):
            return False
        self._expecting.setdefault(key_of(blob, chunk), []).append(ended)
        self._idle.unpark()
        return True

    async def put(self, blob: Blob, chunk: Chunk, data: Buffer) -> None:
        """Keep a chunk that was not asked for here, and wake its readers; raises Corrupt."""
        key = key_of(blob, chunk)
        kept = await self._keeper.keep(await self.shelf(blob), key, chunk, data)
        self._pulse.beat(trio.current_time())
        self._landed(key, kept)

    def forget_ahead(self) -> None:
        """Let go of what is wanted ahead and not in flight yet."""
        for key in self._wanted.clear_ahead():
            self._tell(key, Missing("nobody wants it any more"))

    @property
    def pending(self) -> int:
        """Chunks asked for that are not in flight yet."""
        return self._wanted.pending

    async def shelf(self, blob: Blob) -> BlobShelf | None:
        """Open *blob* in the cache; None where that is impossible now."""
        if (found := self._views.shelves.get(blob.id)) is not None:
            return found
        async with self._opening:
            shelf = self._views.shelves.get(blob.id)
            if shelf is None:
                shelf = await self._keeper.open(blob)
                if shelf is not None:
                    self._views.shelves[blob.id] = shelf
        return shelf

    async def _patiently(self, reader: Reader) -> None:
        """Wait for *reader*'s chunks while anything comes for this image."""
        since = trio.current_time()
        while reader.missing and reader.failure is None:
            last = self._pulse.last
            patience = self._given_up.patience(self._deadline, since, last)
            due = max(since, last) + patience
            if trio.current_time() >= due:
                why = f"; last: {self.fault.text}" if self.fault.text else ""
                raise Unreachable(f"no bytes came for {patience:g} s{why}")
            with trio.move_on_at(due):
                await reader.moved.wait()
        if reader.failure is not None:
            raise reader.failure

    async def _work(self, workers: int | None) -> None:
        while True:
            ahead = self._width.now if workers is None else workers - 1
            batch = self._wanted.take(self._width.size, demanded_only=self._busy >= ahead)
            if batch is None:
                await self._idle.park()
                continue
            if self._wanted.pending:
                self._idle.unpark()
            self._busy += 1
            try:
                await self._serve(*batch)
            finally:
                self._busy -= 1

    async def _serve(self, blob: Blob, chunks: Sequence[Chunk]) -> None:
        """Bring one batch: look again, see who else is at it, fetch."""
        shelf = await self.shelf(blob)
        missing: dict[Key, Chunk] = {}
        started: list[Key] = []
        try:
            for chunk in chunks:
                key = key_of(blob, chunk)
                if shelf is not None and await self._here(shelf, chunk):
                    self._landed(key)
                elif key in self._impatient:
                    missing[key] = chunk
                elif self._flights.start(key):
                    started.append(key)
                    missing[key] = chunk
                else:
                    self._follow(blob, chunk)
            failure = await self._fetch(blob, shelf, missing)
        finally:
            for key in started:
                self._flights.end(key)
        for key in missing:
            self._failed(key, failure)

    async def _here(self, shelf: BlobShelf, chunk: Chunk) -> bool:
        if shelf.find(chunk) is not None:
            return True
        return shelf.doubts(chunk) and await self._keeper.verify(shelf, chunk)

    async def _fetch(
        self, blob: Blob, shelf: BlobShelf | None, missing: dict[Key, Chunk]
    ) -> ChunkstoreError:
        """Fetch what is *missing*, taking out what was delivered; return why some was not.

        A corrupt chunk is asked for once more: what damaged it may be on the way.
        """
        failure: ChunkstoreError = Missing(f"blob {blob.id}: the source gave nothing")
        asked: float | None = trio.current_time()

        async def deliver(chunk: Chunk, data: Buffer) -> None:
            nonlocal asked
            key = key_of(blob, chunk)
            if asked is not None:
                self._width.answered(trio.current_time() - asked)
                asked = None
            if key not in missing:
                return
            kept = await self._keeper.keep(shelf, key, chunk, data)
            now = trio.current_time()
            self._pulse.beat(now)
            self._width.landed(chunk.size, now, full=self._wanted.pending > 0)
            missing.pop(key, None)
            if kept is None and any(reader.insist for reader in self._waiting.get(key, ())):
                kept = bytes(data)
            self._landed(key, kept)

        for _ in range(2):
            if not missing:
                break
            try:
                await self._ask(blob, list(missing.values()), deliver)
            except ChunkstoreError as exc:
                failure = exc
            if not isinstance(failure, Corrupt):
                break
        return failure

    async def _ask(self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver) -> None:
        """Ask the source, under the watchdog's eyes."""
        with trio.CancelScope() as scope:
            self._fetches[scope] = trio.current_time()
            try:
                await self._source.fetch(blob, chunks, deliver)
            finally:
                del self._fetches[scope]
        if scope.cancelled_caught:
            raise Unreachable(f"blob {blob.id}: {self._source!r} did not end")

    async def _watch(self) -> None:
        """Give up fetches whose source keeps no deadline of its own, long after readers have."""
        while True:
            patience = 2 * self._deadline
            oldest = min(self._fetches.values(), default=trio.current_time())
            await trio.sleep_until(max(oldest, self._pulse.last) + patience)
            late = trio.current_time() - patience
            for scope, since in self._fetches.items():
                if max(since, self._pulse.last) <= late:
                    scope.cancel()

    def _follow(self, blob: Blob, chunk: Chunk) -> None:
        """Leave a chunk to the store that has it in hand, for a while."""
        key = key_of(blob, chunk)
        ended = trio.Event()
        self._flights.follow(key, ended.set)

        async def outwait() -> None:
            with trio.move_on_after(FOLLOWING):
                await ended.wait()
            if ended.is_set():
                self._landed(key)  # its readers look, and demand it again if it did not come
                return
            self._impatient.add(key)
            self._wanted.landed(key)
            self._wanted.demand(blob, chunk)
            self._idle.unpark_all()

        assert self._nursery is not None
        self._nursery.start_soon(outwait)

    def _landed(self, key: Key, data: Buffer | None = None) -> None:
        self._wanted.landed(key)
        self._impatient.discard(key)
        self.demand.discard(key)
        for reader in self._waiting.pop(key, ()):
            reader.landed(key, data)
        self._tell(key, None)

    def _tell(self, key: Key, failure: ChunkstoreError | None) -> None:
        for ended in self._expecting.pop(key, ()):
            ended(failure)

    def _failed(self, key: Key, failure: ChunkstoreError) -> None:
        """Tell the readers of a chunk; those who came late to its fetch have it tried again."""
        self._wanted.landed(key)
        self._impatient.discard(key)
        self.fault.note(str(failure))
        for reader in self._waiting.pop(key, ()):
            if key in reader.late and self._nursery is not None:
                reader.late.discard(key)
                self._waiting.setdefault(key, []).append(reader)
                self._wanted.demand(*reader.missing[key])
            else:
                reader.failed(failure)
        if key not in self._waiting:
            self._tell(key, failure)
        self._idle.unpark_all()

    def _leave(self, key: Key, reader: Reader) -> None:
        """Forget that *reader* waits; what nobody waits for is not fetched."""
        readers = self._waiting.get(key)
        if readers is None or reader not in readers:
            return
        readers.remove(reader)
        if not readers:
            del self._waiting[key]
            self._wanted.withdraw(key)
            self.demand.discard(key)
            if not self._wanted.has(key):
                self._tell(key, Missing("its reader was interrupted"))
