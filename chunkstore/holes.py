"""Space of sparse files: allocate a range before it is written, punch a hole where it was.

Allocating first makes a full disk show before a byte is written, and makes the write itself
cheaper: pwrite of 1 GiB in 256 KiB chunks took 0.18 s of system time against 0.2 to 2.5 s into
holes (ext4).
"""

from __future__ import annotations

import ctypes
import errno
import os

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
"""Flags of fallocate(2), linux/falloc.h."""

_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS)

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def allocate(fd: int, start: int, stop: int) -> None:
    """Allocate ``[start, stop)``; raises OSError (ENOSPC), does nothing where files cannot.

    Not posix_fallocate, whose emulation writes, and would race with another process's chunks.
    """
    _call(fd, 0, start, stop)


def punch(fd: int, start: int, stop: int) -> bool:
    """Make ``[start, stop)`` zeros without blocks; say whether the filesystem can."""
    return _call(fd, _KEEP_SIZE | _PUNCH_HOLE, start, stop)


def _call(fd: int, mode: int, start: int, stop: int) -> bool:
    while _fallocate(fd, mode, start, stop - start) != 0:
        code = ctypes.get_errno()
        if code in _UNSUPPORTED:
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True
