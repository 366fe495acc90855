"""Direct reads: large pieces of a cache file that the page cache has not, past the page cache.

What a mount's reader gets is cached as part of the file it reads; to cache it once more on its way
costs more than the copy, and memory besides [measured: 1.1 s of CPU per GiB, against 0.4].
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections import deque

from .digest import Buffer
from .hugepages import SIZE, Room, room

SMALLEST = 256 << 10
"""Bytes from which a read is made directly; below, what the disk reads along is worth keeping."""

BLOCK = 4096
"""What direct reads are aligned to."""

POOLED = 16
"""Buffers that are kept, of up to `LARGEST` bytes."""

LARGEST = SIZE
"""In small pages a read of a megabyte is more places than a request to the disk may name."""

_CACHESTAT = 451
"""Linux 6.5; the number is the same everywhere."""

_libc = ctypes.CDLL(None, use_errno=True)
_Words = ctypes.c_uint64 * 5


def resident(fd: int, start: int, stop: int) -> bool:
    """Say whether the page cache has all of a file's ``[start, stop)``; so too if nobody knows."""
    found = cached(fd, start, stop)
    return found is None or found >= stop - start


def cached(fd: int, start: int, stop: int) -> int | None:
    """Return how many bytes of a file's range the page cache has; None if nobody knows."""
    place, found = _Words(start, stop - start), _Words()
    if _libc.syscall(_CACHESTAT, fd, place, found, 0) != 0:
        return None
    return int(found[0]) * mmap.PAGESIZE


def dirty(fd: int, start: int, stop: int) -> bool:
    """Say whether the disk still lacks some of a file's ``[start, stop)``; no if nobody knows."""
    place, found = _Words(start, stop - start), _Words()
    return _libc.syscall(_CACHESTAT, fd, place, found, 0) == 0 and found[1] > 0


def reopened(fd: int) -> int:
    """Open the file behind *fd* for direct reads; -1 where its file system has none."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return -1


class Buffers:
    """Aligned memory for direct reads, kept and used again. Any thread may call."""

    def __init__(self) -> None:
        self._free: deque[Room] = deque(maxlen=POOLED)

    def take(self, size: int) -> memoryview:
        """Return *size* bytes of memory, the last ones given back if that is enough."""
        if size > LARGEST:
            return memoryview(bytearray(size))
        try:
            found = self._free.pop()
        except IndexError:
            found = room(LARGEST)
        return memoryview(found)[:size]

    def give(self, data: Buffer | None) -> None:
        """Take back what nobody looks at any more; anything else is left to its owners."""
        if isinstance(data, memoryview) and isinstance(data.obj, Room):
            self._free.append(data.obj)
