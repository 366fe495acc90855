"""The kernel's newer way to mount: fsopen(2), fsconfig(2), fsmount(2), move_mount(2) (Linux 5.2).

A setting is a call each, so neither commas nor the 4,096 bytes of mount(2)'s options limit it, a
mount can exist before it has a place, and what goes wrong is told in words.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import TracebackType

# Numbers that are the same everywhere; glibc 2.36 is the first to wrap them.
_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432
_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_AT_FDCWD = -100
_FROM_HANDLE = 0x4
_AT_EMPTY_PATH, _AT_STATX_DONT_SYNC = 0x1000, 0x4000
_STATX_SIZE, _DEVICE_AT = 256, 136

_libc = ctypes.CDLL(None, use_errno=True)


class Context:
    """A file system that is being configured."""

    def __init__(self, kind: str) -> None:
        """Begin with one of *kind*; raises OSError, ENODEV where the kernel does not have it."""
        self.handle = _called(_FSOPEN, kind.encode(), _CLOEXEC)

    def __enter__(self) -> Context:
        """Return the context."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of what was not mounted."""
        os.close(self.handle)

    def set(self, key: str, value: str | Path) -> None:
        """Give a setting its value; raises OSError."""
        words = key.encode(), os.fsencode(value)
        self._told(_FSCONFIG, self.handle, _SET_STRING, *words, 0)

    def set_flag(self, key: str) -> None:
        """Switch a setting on; raises OSError."""
        self._told(_FSCONFIG, self.handle, _SET_FLAG, key.encode(), None, 0)

    def mount(self, flags: int = 0) -> int:
        """Make the file system and return a handle of its mount, which has no place yet.

        *flags* are MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC of mount(2), which mean the same here.
        It vanishes when the handle is closed, unless it was attached. Raises OSError.
        """
        self._told(_FSCONFIG, self.handle, _CREATE, None, None, 0)
        return self._told(_FSMOUNT, self.handle, _CLOEXEC, flags)

    def _told(self, *call: int | bytes | None) -> int:
        """Make a system call; its error says what the kernel says about it."""
        try:
            return _called(*call)
        except OSError as exc:
            raise OSError(exc.errno, self._message() or exc.strerror) from exc

    def _message(self) -> str:
        try:
            said = os.read(self.handle, 1024)
        except OSError:
            return ""
        return said.decode(errors="replace").partition(" ")[2].strip()


def attach(handle: int, place: Path) -> None:
    """Put the mount of *handle* where *place* is; raises OSError."""
    _called(_MOVE_MOUNT, handle, b"", _AT_FDCWD, os.fsencode(place), _FROM_HANDLE)


def device_of(handle: int) -> tuple[int, int]:
    """Return the device number of the file system behind *handle*, without asking its server."""
    facts = ctypes.create_string_buffer(_STATX_SIZE)
    flags = _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC
    if _libc.statx(handle, b"", flags, 0, facts) != 0:
        raise _error()
    words = memoryview(facts).cast("B")[_DEVICE_AT : _DEVICE_AT + 8].cast("I")
    return words[0], words[1]


def _called(*call: int | bytes | None) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in call]
    result = int(_libc.syscall(*words))
    if result < 0:
        raise _error()
    return result


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
