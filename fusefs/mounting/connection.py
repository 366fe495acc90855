"""A FUSE connection's settings and counters: fusectl and the backing device's read-ahead."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .mountinfo import Mounted
from .newmount import Context

CONNECTIONS = Path("/sys/fs/fuse/connections")
BDI = Path("/sys/class/bdi")


class Connection:
    """The kernel's settings and counters of one FUSE mount; what is not permitted does nothing.

    A connection's number is another one's as soon as its mount has gone. So what aborts it is
    opened while it is certain whose it is: of a connection that has ended, it does nothing.
    """

    def __init__(self, device: tuple[int, int]) -> None:
        self._device = device
        self._minor = device[1]
        self._end = self._opened("abort", os.O_WRONLY)

    def is_of(self, mounted: Mounted) -> bool:
        """Say whether *mounted* is this connection's mount and no other's."""
        return mounted.device == self._device

    def abort(self) -> bool:
        """Fail every request, waiting and to come; say whether it could be asked."""
        try:
            return self._end >= 0 and os.write(self._end, b"1") == 1
        except OSError:
            return False

    def close(self) -> None:
        """Let go of what aborts it."""
        if self._end >= 0:
            os.close(self._end)
        self._end = -1

    def waiting(self) -> int:
        """Return how many requests the kernel has open; 0 where that cannot be read."""
        with self._file("waiting", os.O_RDONLY) as handle:
            return int(os.read(handle, 32)) if handle is not None else 0

    def set_background(self, limit: int) -> bool:
        """Let *limit* reads be under way at once, and call none of them congestion."""
        return self._write("max_background", str(limit)) and self._write(
            "congestion_threshold", str(limit)
        )

    def set_read_ahead(self, size: int) -> bool:
        """Let the kernel read *size* bytes ahead of a sequential reader."""
        return set_read_ahead(self._device, size)

    def _write(self, name: str, value: str) -> bool:
        with self._file(name, os.O_WRONLY) as handle:
            if handle is None:
                return False
            try:
                os.write(handle, value.encode())
            except OSError:
                return False
            return True

    @contextmanager
    def _file(self, name: str, flags: int) -> Iterator[int | None]:
        handle = self._opened(name, flags)
        try:
            yield None if handle < 0 else handle
        finally:
            if handle >= 0:
                os.close(handle)

    def _opened(self, name: str, flags: int) -> int:
        """Open one of the connection's files; -1 where that is not permitted."""
        folder = _control_folder()
        try:
            return os.open(f"{self._minor}/{name}", flags | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            return -1
        finally:
            if folder >= 0:
                os.close(folder)


def _control_folder() -> int:
    """Open fusectl's folder: where it is mounted, else a mount of it that nobody else can see.

    -1 where neither is permitted.
    """
    try:
        if next(CONNECTIONS.iterdir(), None) is not None:
            return os.open(CONNECTIONS, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        pass
    return _private_fusectl()


def _private_fusectl() -> int:
    """Mount fusectl detached from every name (Linux 5.2)."""
    try:
        with Context("fusectl") as context:
            return context.mount()
    except OSError:
        return -1


def unnamed_devices(kind: str) -> frozenset[str]:
    """Return the backing devices of file systems of *kind* that are not named by a number."""
    return frozenset(path.name for path in BDI.glob(f"{kind}-*"))


def set_read_ahead(device: tuple[int, int] | str, size: int) -> bool:
    """Let the kernel read *size* bytes ahead on a file system; say whether it may be asked."""
    name = device if isinstance(device, str) else "{}:{}".format(*device)
    try:
        (BDI / name / "read_ahead_kb").write_text(str(size >> 10))
    except OSError:
        return False
    return True
