"""The keeper: verifies what sources deliver, and puts it into the cache, or into memory.

Hashing and writing 1 MiB take 0.35 ms. Handing it to a thread takes 0.1 ms of the event loop and
its caches: cold reads over loopback HTTP reached 0.7 GB/s through a thread and 0.92 in the loop
[2 cores]. So only larger chunks go to a thread, and to one: several writers of one file spin on its
lock. A disk that stalls must not stop the loop, which nobody can tell in advance; so the first slow
write sends all others to the thread, until one is quick again.

Tasks: ``keep`` is called by the fetcher's workers, side by side; ``run`` is the evictor.
"""

from __future__ import annotations

import errno
import logging
import time

import trio

from .blobcache import BlobCache
from .chunk import Blob, Chunk
from .digest import Buffer, Digest
from .eviction import Eviction
from .held import Held
from .ledger import Fault
from .shelf import BlobShelf, OpenShelf, Shelf
from .wanted import Key

logger = logging.getLogger(__name__)

KEPT_IN_THREAD = (1 << 20) + 1
"""Bytes from which a chunk is hashed and written in a thread."""

SLOW = 0.05
"""Seconds that no write into the page cache takes unless the disk holds it up."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What eviction can help against."""


class Keeper:
    """Where one image's chunks are kept."""

    def __init__(
        self, cache: BlobCache, held: Held, owner: Digest, open_shelf: OpenShelf = Shelf
    ) -> None:
        self._open_shelf = open_shelf
        self._cache = cache
        self._held = held
        self._owner = owner
        self._eviction = Eviction(cache)
        self._writing = trio.CapacityLimiter(1)
        self._reading = trio.CapacityLimiter(2)
        self._over_limit = trio.Event()
        self._slow = False
        self._homeless: set[str] = set()
        """Blobs that could not be opened, of which the log was told."""
        self.fault = Fault()

    async def run(self) -> None:
        """Evict whenever the cache's limit is reached."""
        alone = trio.CapacityLimiter(1)
        while True:
            await self._over_limit.wait()
            self._over_limit = trio.Event()
            await trio.to_thread.run_sync(self._keep_limit, limiter=alone)

    async def open(self, blob: Blob) -> BlobShelf | None:
        """Open *blob*'s shelf; None where that is impossible now."""
        return await trio.to_thread.run_sync(self._open, blob, limiter=self._reading)

    async def verify(self, shelf: BlobShelf, chunk: Chunk) -> bool:
        """Verify a chunk that a crash made doubtful; say whether it is ready now."""
        return await trio.to_thread.run_sync(self._verify, shelf, chunk, limiter=self._reading)

    async def keep(
        self, shelf: BlobShelf | None, key: Key, chunk: Chunk, data: Buffer
    ) -> Buffer | None:
        """Verify *data* and keep it; return it where only memory could hold it.

        Raises Corrupt.
        """
        if shelf is None or not self._at_once(shelf, chunk, data):
            stored = await trio.to_thread.run_sync(
                self._store, shelf, chunk, data, limiter=self._writing
            )
            if not stored:
                copy = bytes(data)
                self._held.put(key, copy)
                return copy
        if self._eviction.wrote(chunk.size):
            self._over_limit.set()
        return None

    def _at_once(self, shelf: BlobShelf, chunk: Chunk, data: Buffer) -> bool:
        """Store a small chunk in the event loop, unless the disk is slow or full."""
        if self._slow or chunk.size >= KEPT_IN_THREAD or not shelf.quick:
            return False
        try:
            return self._put(shelf, chunk, data)
        except OSError:
            return False

    def _store(self, shelf: BlobShelf | None, chunk: Chunk, data: Buffer) -> bool:
        """Verify a chunk and store it, making room; False where that does not help."""
        if shelf is None:
            self._open_shelf.check(chunk, data)
            return False
        for _ in range(2):
            try:
                return self._put(shelf, chunk, data)
            except OSError as exc:
                if not self._room_made(exc, chunk.size):
                    break
        return False  # not before it was verified: shelves do that first

    def _put(self, shelf: BlobShelf, chunk: Chunk, data: Buffer) -> bool:
        start = time.monotonic()
        stored = shelf.put(chunk, data)
        slow = time.monotonic() - start > SLOW
        if slow and not self._slow:
            logger.info("disk is slow, writing in threads")
        self._slow = slow
        return stored

    def _open(self, blob: Blob) -> BlobShelf | None:
        for _ in range(2):
            try:
                return self._open_shelf(self._cache, blob, self._owner)
            except OSError as exc:
                if not self._room_made(exc, 0):
                    if blob.id not in self._homeless:
                        logger.warning("blob not cached blob=%s reason=%s", blob.id, exc.strerror)
                    self._homeless.add(blob.id)
                    break
        return None

    def _verify(self, shelf: BlobShelf, chunk: Chunk) -> bool:
        try:
            return shelf.verify(chunk)
        except OSError as exc:
            self._note(exc)
            return False

    def _room_made(self, exc: OSError, size: int) -> bool:
        """Say whether eviction could help against *exc*, and did."""
        self._note(exc)
        try:
            return exc.errno in _NO_ROOM and self._eviction.make_room(size)
        except OSError as other:
            self._note(other)
            return False

    def _keep_limit(self) -> None:
        try:
            self._eviction.keep_limit()
        except OSError as exc:
            logger.warning("eviction failed reason=%s", exc.strerror)
            self._note(exc)

    def _note(self, exc: OSError) -> None:
        self.fault.note(f"cache: {exc.strerror}")
