"""Eviction: what the cache gives up when it reaches its limit, or the disk is full.

First whole blobs that nobody has open, the longest unused first. Then chunks of blobs that are
open, in this process or in another, the least used first: their states are cleared, the lease is
taken exclusively, holes are punched. One process at a time makes room; the others, finding it at
work, go on. Use is a byte per chunk in the ready map, set by readers and halved by each eviction,
so that all processes know what any of them uses.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from sortedcontainers import SortedKeyList

from .blobcache import BlobCache
from .cachefile import CacheFile
from .filepair import Place
from .readymap import CLAIMED, READY, UNVERIFIED

logger = logging.getLogger(__name__)

LOW_WATER = 0.9
"""Share of the limit that is left when an eviction is done, so that the next one is not at once."""

CHECKED_EVERY = 16 << 20
"""Bytes written between looks at the folder's usage; less where the limit is small."""

PATIENCE = 0.1
"""Seconds to wait for readers and writers of a blob before going on with the next one."""

BATCH = 32 << 20
"""Decoded bytes punched under one exclusive lease: readers wait for as long (milliseconds)."""


ROOM_ASKED = 64 << 20
"""Bytes, or a quarter of the cache, that are freed at once when the disk is full."""

BARREN = 5.0
"""Seconds to do without eviction after one that freed nothing."""


class Eviction:
    """Keeps one cache folder within its limit, for one process.

    Tasks: ``wrote`` from any thread; ``make_room`` waits for the disk and for leases, so never in
    the event loop.
    """

    def __init__(self, cache: BlobCache, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._clock = clock
        self._barren_until = -math.inf
        self._since = 0
        self._every = min(CHECKED_EVERY, (cache.limit or CHECKED_EVERY) // 16)

    def wrote(self, size: int) -> bool:
        """Note *size* bytes written; say whether it is time to look at the limit."""
        if self._cache.limit is None:
            return False
        self._since += size
        return self._since >= self._every

    def keep_limit(self) -> int:
        """Evict if the folder is over its limit; return the bytes freed."""
        self._since = 0
        limit = self._cache.limit
        if limit is None or not self._cache.evicting.take():
            return 0
        try:
            used = usage(self._cache.root)
            return 0 if used <= limit - self._every else self.free(used - int(LOW_WATER * limit))
        finally:
            self._cache.evicting.give()

    def make_room(self, size: int) -> bool:
        """Free *size* bytes and some more because the disk is full; say whether there is room now.

        Waits for another process that is at it. When nothing can be freed, it is not tried again
        for a while.
        """
        if self._clock() < self._barren_until:
            return False
        with self._cache.evicting:
            ask = max(size, min(ROOM_ASKED, usage(self._cache.root) // 4))
            if _available(self._cache.root) >= ask or self.free(ask) > 0:
                return True
        self._barren_until = self._clock() + BARREN
        return False

    def collect(self, limit: int) -> int:
        """Remove unused blobs until the folder takes *limit* bytes; return the bytes freed."""
        with self._cache.evicting:
            return self._free_blobs(usage(self._cache.root) - limit)

    def free(self, size: int) -> int:
        """Free *size* bytes if that is possible; the lock *evicting* is held."""
        freed = self._free_blobs(size)
        if freed < size:
            freed += self._free_chunks(size - freed)
        logger.info("evicted freed=%d asked=%d", freed, size)
        return freed

    def _reopen(self, place: Place) -> CacheFile | None:
        try:
            return self._cache.reopen(place)
        except OSError as exc:
            logger.info("cannot be opened blob=%s reason=%s", place.name, exc.strerror)
            return None

    def _free_blobs(self, size: int) -> int:
        freed = 0
        for place in by_last_use(self._cache):
            if freed >= size:
                break
            freed += remove(self._cache, place)
        return freed

    def _free_chunks(self, size: int) -> int:
        freed = 0
        files = [file for place in self._cache.places() if (file := self._reopen(place))]
        try:
            for file in files:
                if freed < size and (left := _left_over(file)):
                    freed += file.evict(left, PATIENCE)
            freed += _punch(files, size - freed)
            for file in files:
                file.map.age()
        finally:
            for file in files:
                self._cache.close_file(file)
        return freed


def usage(root: Path) -> int:
    """Return the bytes that the cache's files take on the disk."""
    total = 0
    folders = [root / "blobs", *(root / "apart").glob("*")]
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                except FileNotFoundError:
                    continue
    return total


def by_last_use(cache: BlobCache) -> Iterator[Place]:
    """Yield the blobs, the longest unused first, whether or not they are in use."""
    places = SortedKeyList(key=lambda aged: aged[0])
    for place in cache.places():
        try:
            places.add((place.map.stat().st_mtime, place))
        except FileNotFoundError:
            continue
    for _, place in places:
        yield place


def remove(cache: BlobCache, place: Place) -> int:
    """Remove a blob that nobody has open; return the bytes freed, 0 where it is in use."""
    trash = cache.root / "trash"
    trash.mkdir(0o700, exist_ok=True)
    freed = 0
    with cache.lock:
        if not idle(place):
            return 0
        for path in (place.map, place.data):
            freed += path.stat().st_blocks * 512
            path.replace(trash / uuid.uuid4().hex)
        for beside in (".digests", ".origin"):  # what is known of a file at a url, of a seeded blob
            place.data.with_suffix(beside).unlink(missing_ok=True)
        if place.folder.parent == cache.root / "apart" and not any(place.folder.iterdir()):
            place.folder.rmdir()
    for path in trash.iterdir():  # outside the lock, with what a killed process left here
        path.unlink(missing_ok=True)
    return freed


def _available(root: Path) -> int:
    facts = os.statvfs(root)
    return facts.f_bavail * facts.f_frsize


def idle(place: Place) -> bool:
    """Say whether no process has the blob open; the folder's lock keeps it so."""
    try:
        fd = os.open(place.map, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return place.data.exists()
    finally:
        os.close(fd)


def _punch(files: list[CacheFile], size: int) -> int:
    """Evict the least used chunks, those of one file together; return the bytes freed.

    A file that gives nothing is in use, by a reply that waits for what waits for this: it would
    lose one chunk after the other, which has to be fetched again, and no bytes.
    """
    freed = together = 0
    batch: list[int] = []
    busy: set[CacheFile] = set()
    chunks = (found for found in _least_used(files) if found[0] not in busy)
    entry = next(chunks, None)
    while entry is not None and freed < size:
        file, index, chunk_size = entry
        batch.append(index)
        together += chunk_size
        entry = next(chunks, None)
        if entry is None or entry[0] is not file or together >= min(BATCH, size - freed):
            got = file.evict(batch, PATIENCE)
            if not got:
                busy.add(file)
                if entry is not None and entry[0] is file:
                    entry = next(chunks, None)
            freed += got
            batch, together = [], 0
    return freed


def _left_over(file: CacheFile) -> list[int]:
    """Return the slots whose bytes an interrupted eviction or write left behind."""
    return [
        index
        for index, record in file.map.records()
        if record.marked and file.map.states[index] == CLAIMED
    ]


def _least_used(files: list[CacheFile]) -> Iterator[tuple[CacheFile, int, int]]:
    """Yield the ready chunks with their sizes, the least used of all files first."""
    uses = [(file, file.map.uses.tobytes()) for file in files]
    for level in sorted(set().union(*(set(of_file) for _, of_file in uses))):
        for file, of_file in uses:
            index = of_file.find(level)
            while index >= 0:
                record = file.map.record(index)
                if record is not None and file.map.states[index] in (READY, UNVERIFIED):
                    yield file, index, record.size
                index = of_file.find(level, index + 1)
