"""A file of one's own out of a cache file: cloned where the file system can, else copied.

Never a hard link: whoever changes the output must not change the cache. It appears whole under its
name, or not at all.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import name_place

_FICLONE = 0x40049409
"""ioctl of btrfs, XFS, bcachefs: the same blocks, shared until either is written."""

_STEP = 8 << 20
"""Bytes copied between two looks at whether to go on."""

_CANNOT = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM)
"""How file systems say that they do not clone, or do not copy by themselves."""

Going = Callable[[int], None]
"""Told how many bytes are copied; raises to have it stop."""


@contextmanager
def unfinished(path: Path) -> Iterator[int]:
    """Yield a file that takes the name *path* when all went well, durably; raises OSError.

    It has no name before, where the file system allows, so that a killed process leaves nothing.
    """
    temporary = path.parent / f".{path.name[:200]}.{secrets.token_hex(6)}"
    fd, named = _opened(temporary)
    try:
        yield fd
        os.fsync(fd)
        if not named:
            # Any directory's number makes CPython call linkat, which follows /proc's link.
            os.link(f"/proc/self/fd/{fd}", temporary, src_dir_fd=fd, follow_symlinks=True)
            named = True
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as exc:
        if named:
            temporary.unlink(missing_ok=True)
        name_place(exc, path)
        raise
    finally:
        os.close(fd)


def _opened(temporary: Path) -> tuple[int, bool]:
    """Return a new file, and whether it has its name already."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(temporary.parent, flags | os.O_TMPFILE, 0o666), False
    except OSError as exc:
        if exc.errno not in (*_CANNOT, errno.EISDIR):
            raise
    return os.open(temporary, flags | os.O_CREAT | os.O_EXCL, 0o666), True


def copy(source: int, out: int, size: int, going: Going) -> str:
    """Make *out* the first *size* bytes of *source*; return how: ``clone`` or ``copy``."""
    try:
        fcntl.ioctl(out, _FICLONE, source)
        os.ftruncate(out, size)
        going(size)
        return "clone"
    except OSError as exc:
        if exc.errno not in _CANNOT:
            raise
    done = _copied_by_kernel(source, out, size, going)
    while done < size:
        data = os.pread(source, min(_STEP, size - done), done)
        if not data:
            raise OSError(errno.EIO, "the cache file is shorter than what it holds")
        written = os.pwrite(out, data, done)
        done += written
        going(done)
    return "copy"


def _copied_by_kernel(source: int, out: int, size: int, going: Going) -> int:
    done = 0
    try:
        while done < size:
            count = os.copy_file_range(source, out, min(_STEP, size - done), done, done)
            if not count:
                break
            done += count
            going(done)
    except OSError as exc:
        if exc.errno not in _CANNOT:
            raise
    return done


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
