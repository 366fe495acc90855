"""A disk queue: direct reads that are under way while no thread waits for them (Linux AIO).

A thread per read, from the event loop and back, takes as long as the copy of a megabyte, and two
that want the interpreter wait for one another [measured: 0.84 s of CPU per GiB for a sequential
reader through FUSE]. Where the kernel has no such queue, or no room in it, ``read`` says so.

Tasks: of the event loop; ``run`` is one, which waits while something is under way.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable
from contextlib import suppress

import trio

DEPTH = 32
"""Reads under way; twice what is read ahead of all readers."""

_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""io_setup, io_destroy, io_getevents, io_submit."""

_IOCB = struct.Struct("<QIIHhIQQqQII")
"""data, key, rw_flags, opcode, priority, fd, address, size, offset, reserved, flags, event fd."""

_EVENT = struct.Struct("<QQqq")
"""data, iocb, result, the same again."""

_PREAD, _RESFD = 0, 1
_NOWAIT = 8
"""RWF_NOWAIT: an error where the call itself would wait, for a place on the disk or a whole file
system that knows no other way."""

_libc = ctypes.CDLL(None, use_errno=True)

Done = Callable[[int], None]
"""Told how many bytes came, or a negative errno; never awaits."""


class DiskQueue:
    """Direct reads of one image's cache files."""

    def __init__(self, machine: str | None = None) -> None:
        self._calls = _CALLS.get(machine or platform.machine())
        self._context = ctypes.c_ulong(0)
        self._event = -1
        """Readable when some have ended."""
        self._under_way: dict[int, Done] = {}
        self._count = 0
        self._iocb = ctypes.create_string_buffer(_IOCB.size)
        self._place = ctypes.pointer(ctypes.c_void_p(ctypes.addressof(self._iocb)))
        self._ended = ctypes.create_string_buffer(DEPTH * _EVENT.size)
        self._some = trio.Event()
        self._running = False

    def read(self, fd: int, into: memoryview, start: int, done: Done) -> bool:
        """Begin to fill *into*, which must stay, from *fd* and tell *done* once; False: cannot."""
        if not self._running or self._calls is None or len(self._under_way) >= DEPTH:
            return False
        if self._event < 0 and not self._open():
            return False
        self._count += 1
        address = ctypes.addressof(ctypes.c_char.from_buffer(into))
        words = (self._count, 0, _NOWAIT, _PREAD, 0, fd, address, len(into), start, 0, _RESFD)
        _IOCB.pack_into(self._iocb, 0, *words, self._event)
        if _libc.syscall(self._calls[3], self._context, 1, self._place) != 1:
            return False
        self._under_way[self._count] = done
        self._some.set()
        return True

    async def run(self) -> None:
        """Tell of what has ended, until cancelled; then what is under way is waited for."""
        self._running = True
        try:
            while True:
                await self._some.wait()
                while self._under_way:
                    await trio.lowlevel.wait_readable(self._event)
                    self._tell()
                self._some = trio.Event()
        finally:
            self._running = False
            self._close()

    def _tell(self) -> None:
        assert self._calls is not None
        with suppress(BlockingIOError):
            os.eventfd_read(self._event)
        found = _libc.syscall(self._calls[2], self._context, 0, DEPTH, self._ended, None)
        for number in range(found):
            key, _, result, _ = _EVENT.unpack_from(self._ended, number * _EVENT.size)
            self._under_way.pop(key)(result)

    def _open(self) -> bool:
        assert self._calls is not None
        if _libc.syscall(self._calls[0], DEPTH, ctypes.byref(self._context)) != 0:
            self._calls = None  # no such call, not allowed, or too many of them: nor later
            return False
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        return True

    def _close(self) -> None:
        if self._event >= 0 and self._calls is not None:
            # Returns when the kernel writes to nobody's memory any more.
            _libc.syscall(self._calls[1], self._context)
            os.close(self._event)
            self._event, self._context = -1, ctypes.c_ulong(0)
        under_way, self._under_way = self._under_way, {}
        for done in under_way.values():
            done(-errno.ECANCELED)
