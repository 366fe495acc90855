"""Leases: who may touch a cache file's bytes now, in this process and in the others.

A lease is held *shared* by whoever reads bytes out of a cache file or writes a chunk into it, from
before the look at the state byte until the reply has left, or until the state byte is set; it is
held *exclusive* by an evictor while it punches holes. Between processes it is a flock on the open
file; within one process the holders are counted, because all of them share that open file, and the
lock goes to the kernel with the first and comes back with the last.

Tasks: any thread may use a lease. ``share`` never waits and is for the event loop.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.02
"""Seconds between tries for a lock that other processes hold: flock knows no time-out."""


class Lease:
    """The lease of one open cache file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._changed = threading.Condition(threading.Lock())
        self._holders = 0
        self._closed = False
        self.barred = False
        """An evictor of this process waits or works: nobody new may share."""

    def share(self) -> bool:
        """Take the lease shared if that is possible at once; ``release`` gives it back."""
        with self._changed:
            if self.barred or self._closed:
                return False
            if self._holders == 0 and not attempt(self._fd, fcntl.LOCK_SH):
                return False
            self._holders += 1
            return True

    def release(self) -> None:
        """Give one share back; never waits."""
        with self._changed:
            self._holders -= 1
            if self._holders == 0 and not self._closed:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
                self._changed.notify_all()

    def close(self) -> None:
        """Let go before the file is closed: its number may be another file's soon."""
        with self._changed:
            self._closed = True
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lease shared, waiting for evictors first; not for the event loop."""
        while not self.share():
            if self._closed:
                raise OSError(errno.EBADF, "the cache file is closed")
            with self._changed:
                self._changed.wait_for(lambda: not self.barred)
            self._outlast()
        try:
            yield
        finally:
            self.release()

    @contextmanager
    def exclusive(self, patience: float) -> Iterator[bool]:
        """Try for *patience* seconds to hold the lease alone; say whether that worked."""
        with self._changed:
            self._changed.wait_for(lambda: not self.barred)
            self.barred = True
            alone = self._changed.wait_for(lambda: self._holders == 0, patience)
        alone = alone and self._seize(patience)
        try:
            yield alone
        finally:
            with self._changed:
                if alone:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
                self.barred = False
                self._changed.notify_all()

    def _seize(self, patience: float) -> bool:
        deadline = time.monotonic() + patience
        pause = _FIRST_PAUSE
        while not attempt(self._fd, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return True

    def _outlast(self) -> None:
        """Wait until no other process holds the lease exclusive."""
        other = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(other, fcntl.LOCK_SH)
        finally:
            os.close(other)


class FolderLock:
    """The lock of a whole cache folder: held for microseconds, to claim slots and open files."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._mutex = threading.Lock()

    def __enter__(self) -> None:
        self._mutex.acquire()
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *exc: object) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._mutex.release()

    def take(self) -> bool:
        """Take the lock if nobody has it; ``give`` gives it back."""
        if not self._mutex.acquire(blocking=False):
            return False
        if attempt(self._fd, fcntl.LOCK_EX):
            return True
        self._mutex.release()
        return False

    def give(self) -> None:
        """Give back what ``take`` took."""
        self.__exit__()

    def close(self) -> None:
        """Close the file; nobody holds the lock any more."""
        os.close(self._fd)


def attempt(fd: int, operation: int) -> bool:
    """Flock *fd* if that is possible at once. What it held before is lost if it is not."""
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
