"""The fetcher: brings the chunks that readers wait for into the cache, then those wanted ahead.

A chunk is demanded once however many readers wait for it. Workers take runs of chunks, look again
whether they are here by now, see that no other store of this process is fetching them, and hand
them to the source; as each is delivered it is verified, written, and its readers are woken.

Tasks: ``run`` owns the workers, the evictor and the watchdog. Readers wait in their own tasks and
own nothing, so a cancelled one leaves the chunk to the others. ``_waiting``, ``_wanted`` and the
flights change only between awaits.
"""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Mapping, Sequence

import trio

from .blobcache import BlobCache
from .chunk import Blob, Chunk
from .digest import Buffer, Digest
from .errors import ChunkstoreError, Corrupt, Missing, Unreachable
from .eviction import Eviction
from .held import Held
from .ledger import Pulse
from .shelf import Shelf, check
from .source import ChunkSource
from .views import Views
from .wanted import Key, Wanted, key_of

logger = logging.getLogger(__name__)

WORKERS = 4
"""Fetches side by side; one of them is kept for chunks that a reader waits for."""

BATCH_SIZE = 4 << 20
"""Stored bytes that one fetch asks for at most."""

AHEAD_SIZE = 64 << 20
"""Decoded bytes that may be wanted ahead of readers; more is not taken."""

KEPT_IN_THREAD = 64 << 10
"""Bytes from which a chunk is hashed and written in a thread."""

ROOM_ASKED = 64 << 20
"""Bytes that eviction is asked for when the disk is full: not for every chunk anew."""

FOLLOWING = 2.0
"""Seconds to leave a chunk to another image's store: its origin may hang, ours may not."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Reader:
    """One read that waits for chunks."""

    def __init__(self, missing: Mapping[Key, object], *, insist: bool) -> None:
        self.missing = set(missing)
        self.insist = insist
        """It takes a copy even of what the cache keeps: somebody evicts faster than it reads."""
        self.kept: dict[Key, Buffer] = {}
        """Bytes that the cache does not keep."""
        self.failure: ChunkstoreError | None = None
        self.moved = trio.Event()

    def landed(self, key: Key, data: Buffer | None) -> None:
        """Note that a chunk is in the cache, or that *data* holds it."""
        self.missing.discard(key)
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
        self, cache: BlobCache, views: Views, held: Held, source: ChunkSource, owner: Digest
    ) -> None:
        self._cache = cache
        self._views = views
        self._held = held
        self._source = source
        self._owner = owner
        self._eviction = Eviction(cache)
        self._wanted = Wanted(batch_size=BATCH_SIZE, ahead_size=AHEAD_SIZE)
        self._waiting: dict[Key, list[Reader]] = {}
        self._impatient: set[Key] = set()
        """Chunks that another store has had in hand for too long."""
        self._idle = trio.lowlevel.ParkingLot()
        self._over_limit = trio.Event()
        self._threads = trio.CapacityLimiter(WORKERS)
        self._opening = trio.Lock()
        self._nursery: trio.Nursery | None = None
        self.last_error: str | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch what is asked for until cancelled; readers that still wait then fail."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for number in range(WORKERS):
                    nursery.start_soon(self._work, number == 0)
                nursery.start_soon(self._keep_limit)
                task_status.started()
        finally:
            self._nursery = None
            self._fail_all(Unreachable("the image is being closed"))

    async def bring(
        self,
        missing: Mapping[Key, tuple[Blob, Chunk]],
        reader: Reader,
        deadline: float,
        pulse: Pulse,
    ) -> None:
        """Wait until *missing* has landed for *reader*; raises ChunkstoreError.

        Unreachable after *deadline* seconds in which *pulse* did not beat either.
        """
        if self._nursery is None:
            raise Unreachable("the image is not being served")
        for key, (blob, chunk) in missing.items():
            self._waiting.setdefault(key, []).append(reader)
            self._wanted.demand(blob, chunk)
        self._idle.unpark_all()
        try:
            await _patiently(reader, deadline, pulse)
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

    def forget_ahead(self) -> None:
        """Let go of what is wanted ahead and not in flight yet."""
        self._wanted.clear_ahead()

    @property
    def pending(self) -> int:
        """Chunks asked for that are not in flight yet."""
        return self._wanted.pending

    async def shelf(self, blob: Blob) -> Shelf | None:
        """Open *blob* in the cache; None where that is impossible now."""
        async with self._opening:
            shelf = self._views.shelves.get(blob.id)
            if shelf is None:
                shelf = await trio.to_thread.run_sync(self._open, blob, limiter=self._threads)
                if shelf is not None:
                    self._views.shelves[blob.id] = shelf
        return shelf

    async def _work(self, demanded_only: bool) -> None:
        while True:
            batch = self._wanted.take(demanded_only=demanded_only)
            if batch is None:
                await self._idle.park()
            else:
                await self._serve(*batch)

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
                elif self._cache.flights.start(key):
                    started.append(key)
                    missing[key] = chunk
                else:
                    self._follow(blob, chunk)
            failure = await self._fetch(blob, shelf, missing)
        finally:
            for key in started:
                self._cache.flights.end(key)
        for key in missing:
            self._failed(key, failure)

    async def _here(self, shelf: Shelf, chunk: Chunk) -> bool:
        if shelf.find(chunk) is not None:
            return True
        if not shelf.doubts(chunk):
            return False
        return await trio.to_thread.run_sync(shelf.verify, chunk, limiter=self._threads)

    async def _fetch(
        self, blob: Blob, shelf: Shelf | None, missing: dict[Key, Chunk]
    ) -> ChunkstoreError:
        """Fetch what is *missing*, taking out what was delivered; return why some was not.

        A corrupt chunk is asked for once more: what damaged it may be on the way.
        """
        failure: ChunkstoreError = Missing(f"blob {blob.id}: the source gave nothing")

        async def deliver(chunk: Chunk, data: Buffer) -> None:
            key = key_of(blob, chunk)
            if key in missing:
                kept = await self._keep(shelf, key, chunk, data)
                missing.pop(key, None)
                self._landed(key, kept)

        for _ in range(2):
            if not missing:
                break
            try:
                await self._source.fetch(blob, list(missing.values()), deliver)
            except ChunkstoreError as exc:
                failure = exc
            if not isinstance(failure, Corrupt):
                break
        return failure

    async def _keep(
        self, shelf: Shelf | None, key: Key, chunk: Chunk, data: Buffer
    ) -> Buffer | None:
        """Verify and write a delivered chunk; return its bytes if readers need them in memory."""
        if chunk.size < KEPT_IN_THREAD and shelf is not None and shelf.shared.quick:
            stored = self._store(shelf, chunk, data)
        else:
            stored = await trio.to_thread.run_sync(
                self._store, shelf, chunk, data, limiter=self._threads
            )
        if stored and self._eviction.wrote(chunk.size):
            self._over_limit.set()
        if stored and not any(reader.insist for reader in self._waiting.get(key, ())):
            return None
        copy = bytes(data)
        if not stored:
            self._held.put(key, copy)
        return copy

    def _store(self, shelf: Shelf | None, chunk: Chunk, data: Buffer) -> bool:
        """Verify a chunk and put it on its shelf; False where there is no room for it."""
        if shelf is None:
            check(chunk, data)
            return False
        for _ in range(2):
            try:
                return shelf.put(chunk, data)
            except OSError as exc:
                self.last_error = f"cache: {exc.strerror}"
                if exc.errno not in _NO_ROOM or not self._eviction.make_room(ROOM_ASKED):
                    break
        check(chunk, data)
        return False

    def _open(self, blob: Blob) -> Shelf | None:
        for _ in range(2):
            try:
                return Shelf(self._cache, blob, self._owner)
            except OSError as exc:
                self.last_error = f"cache: {exc.strerror}"
                logger.warning("blob not cached blob=%s reason=%s", blob.id, exc.strerror)
                if exc.errno not in _NO_ROOM or not self._eviction.make_room(ROOM_ASKED):
                    break
        return None

    def _follow(self, blob: Blob, chunk: Chunk) -> None:
        """Leave a chunk to the store that has it in hand, for a while."""
        key = key_of(blob, chunk)
        ended = trio.Event()
        self._cache.flights.follow(key, ended.set)

        async def outwait() -> None:
            with trio.move_on_after(FOLLOWING):
                await ended.wait()
            if ended.is_set():
                self._landed(key)
                return
            self._impatient.add(key)
            self._wanted.landed(key)
            self._wanted.demand(blob, chunk)
            self._idle.unpark_all()

        assert self._nursery is not None
        self._nursery.start_soon(outwait)

    async def _keep_limit(self) -> None:
        while True:
            await self._over_limit.wait()
            self._over_limit = trio.Event()
            await trio.to_thread.run_sync(self._eviction.keep_limit)

    def _landed(self, key: Key, data: Buffer | None = None) -> None:
        self._wanted.landed(key)
        self._impatient.discard(key)
        for reader in self._waiting.pop(key, ()):
            reader.landed(key, data)

    def _failed(self, key: Key, failure: ChunkstoreError) -> None:
        self._wanted.landed(key)
        self._impatient.discard(key)
        self.last_error = str(failure)
        for reader in self._waiting.pop(key, ()):
            reader.failed(failure)

    def _fail_all(self, failure: ChunkstoreError) -> None:
        for key in list(self._waiting):
            self._failed(key, failure)

    def _leave(self, key: Key, reader: Reader) -> None:
        """*reader* waits no longer; what nobody waits for is not fetched."""
        readers = self._waiting.get(key)
        if readers is None or reader not in readers:
            return
        readers.remove(reader)
        if not readers:
            del self._waiting[key]
            self._wanted.withdraw(key)


async def _patiently(reader: Reader, deadline: float, pulse: Pulse) -> None:
    since = trio.current_time()
    while reader.missing and reader.failure is None:
        due = max(since, pulse.last) + deadline
        with trio.move_on_at(due):
            await reader.moved.wait()
            continue
        if max(since, pulse.last) + deadline <= trio.current_time() < math.inf:
            raise Unreachable(f"no bytes came for {deadline:g} s")
    if reader.failure is not None:
        raise reader.failure
