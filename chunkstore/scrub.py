"""Scrub: what lies in the cache, whether it is still right, and what can go.

``naiad cache ls``, ``verify`` and ``gc`` are ``inventory``, ``checked`` and ``collect``; a daemon
runs ``scrub`` in the background. A chunk that does not match its digest is dropped: its next reader
fetches it again.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import trio

from .blobcache import BlobCache
from .cachefile import CacheFile
from .eviction import Eviction, idle
from .filepair import Place
from .lease import FolderLock
from .readymap import READY, UNVERIFIED

logger = logging.getLogger(__name__)

RATE = 16e6
"""Bytes per second that the background scrub reads: a day's pass over 1.3 TB, no disk's worry."""

BEFORE = 600.0
"""Seconds before the first pass: a mount's first minutes belong to its readers."""

BETWEEN_PASSES = 24 * 3600.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class BlobFacts:
    """A blob in the cache."""

    name: str
    """Its id, or where that is too long for a file name, a hash of it."""
    owner: str | None
    """The image whose chunks contradict the shared ones, by the digest of its bootstrap."""
    size: int
    """Bytes of its decoded address space."""
    ready_size: int
    ready_chunks: int
    allocated: int
    """Bytes it takes on the disk."""
    used: float
    """When it was opened last, in seconds since 1970."""
    in_use: bool


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of looking at one chunk."""

    place: Place
    index: int
    size: int
    intact: bool


def inventory(cache: BlobCache) -> list[BlobFacts]:
    """Return what lies in the cache, shared blobs first."""
    found = []
    for place in cache.places():
        with cache.lock:
            in_use = not idle(place)
        used = place.map.stat().st_mtime
        file = cache.reopen(place)
        if file is None:
            continue
        owner = place.folder.name if place.folder.parent.name == "apart" else None
        states = file.map.states.tobytes()
        found.append(
            BlobFacts(
                place.name,
                owner,
                place.data.stat().st_size,
                file.map.ready_size(),
                states.count(READY) + states.count(UNVERIFIED),
                file.allocated,
                used,
                in_use,
            )
        )
        cache.close_file(file)
    return found


def checked(cache: BlobCache) -> Generator[Checked, None, None]:
    """Hash every chunk in the cache, dropping the bad ones; yield each as it is done."""
    for place in cache.places():
        file = cache.reopen(place)
        if file is None:
            continue
        try:
            yield from _checked(file)
        finally:
            cache.close_file(file)


def collect(cache: BlobCache, limit: int = 0) -> int:
    """Remove what nobody uses until the cache takes *limit* bytes; return the bytes freed."""
    return Eviction(cache).collect(limit)


async def scrub(
    cache: BlobCache,
    *,
    rate: float = RATE,
    before: float = BEFORE,
    between_passes: float = BETWEEN_PASSES,
) -> None:
    """Look at every chunk again and again, slowly; one process per folder does."""
    turn = FolderLock(cache.root / "scrubbing")
    try:
        await trio.sleep(before)
        while True:
            if turn.take():
                try:
                    await _pass(cache, rate)
                finally:
                    turn.give()
            await trio.sleep(between_passes)
    finally:
        turn.close()


async def _pass(cache: BlobCache, rate: float) -> None:
    bad, chunks = 0, checked(cache)
    limiter = trio.CapacityLimiter(1)
    try:
        while done := await trio.to_thread.run_sync(next, chunks, None, limiter=limiter):
            bad += not done.intact
            await trio.sleep(done.size / rate)
    finally:
        chunks.close()
    logger.info("scrubbed bad=%d", bad)


def _checked(file: CacheFile) -> Iterator[Checked]:
    for index, record in file.map.records():
        if file.map.states[index] in (READY, UNVERIFIED):
            intact = file.check(index)
            if intact is not None:
                yield Checked(file.place, index, record.size, intact)
