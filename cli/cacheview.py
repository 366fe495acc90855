"""What ``naiad cache`` tells of the blob cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from chunkstore.blobcache import BlobCache
from chunkstore.cachefile import CacheFile, Place

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True, slots=True)
class CachedBlob:
    """One blob in the cache."""

    id: str
    """As its file is named: the blob's id where that fits."""
    apart: str
    """The image that it is kept apart for; empty for the shared one."""
    size: int
    """Bytes of its decoded address space."""
    ready_size: int
    """Of them, bytes that are here and verified."""
    allocated: int
    """Bytes that it takes on the disk."""
    used: float
    """When it was last opened or closed, in seconds since 1970."""

    def age(self, now: float) -> str:
        """Return how long ago that was."""
        seconds = max(0.0, now - self.used)
        for size, unit in _UNITS:
            if seconds >= size:
                return f"{seconds / size:.0f} {unit} ago"
        return "now"


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification of the cache found."""

    verified: int
    dropped: int


def blobs(cache: BlobCache) -> Iterator[CachedBlob]:
    """Yield the blobs of *cache*."""
    for place in cache.places():
        used = place.map.stat().st_mtime
        with _opened(cache, place) as file:
            if file is not None:
                apart = place.folder.name if place.folder.parent.name == "apart" else ""
                size = place.data.stat().st_size
                ready, taken = file.ready_size, file.allocated
                yield CachedBlob(place.name, apart, size, ready, taken, used)


def verify(cache: BlobCache) -> Verified:
    """Verify every chunk in *cache*, dropping what is bad."""
    verified = dropped = 0
    for place in cache.places():
        with _opened(cache, place) as file:
            if file is None:
                continue
            for index, _ in file.map.records():
                right = file.check(index)
                verified += right is True
                dropped += right is False
    return Verified(verified, dropped)


@contextmanager
def _opened(cache: BlobCache, place: Place) -> Iterator[CacheFile | None]:
    file = cache.reopen(place)
    try:
        yield file
    finally:
        if file is not None:
            cache.close_file(file)
