"""Device: /dev/fuse, mounted and held, with the INIT request that the kernel sent through it."""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from fusefs.errors import Busy, FusefsError

from .connection import Connection
from .kernel import READ_BUFFER, mount, resend, unmount
from .mountinfo import topmost
from .options import Options
from .shown import Shown

logger = logging.getLogger(__name__)

MAX_BACKGROUND = 2048
"""Reads that the kernel lets be under way; above any bound that the daemon puts on waiting ones."""

READ_AHEAD = 1 << 20
"""Bytes; the largest request of libfuse 3. More brought nothing, 128 KiB is half as fast."""


class Device:
    """One mount, as its supervisor holds it."""

    def __init__(self, image: str, mountpoint: Path, options: Options) -> None:
        """Mount; raises MountFailed."""
        self._image, self._mountpoint, self._options = image, mountpoint, options
        self.handle = -1
        self._connection: Connection | None = None
        self._init = b""
        self.shown = Shown()
        self._mount()

    def __str__(self) -> str:
        return os.fspath(self._mountpoint)

    def _mount(self) -> None:
        self.handle = mount(self._mountpoint, self._image, self._options)
        mounted = topmost(self._mountpoint)
        self._connection = Connection(mounted.device) if mounted else None
        self._init = os.read(self.handle, READ_BUFFER)

    @property
    def private(self) -> Sequence[int]:
        """Handles that no daemon may inherit."""
        return ()

    @property
    def held(self) -> bool:
        """Say whether this process keeps the connection alive."""
        return self.handle >= 0

    def remount(self) -> None:
        """Mount anew in place of a mount whose connection ended; raises MountFailed."""
        self.unmount(lazy=True)
        if self._connection is not None:
            self._connection.close()
        self._mount()

    def init_socket(self) -> socket.socket:
        """Return a socket that gives the INIT request to whoever reads it."""
        filled, init = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with filled:
            filled.send(self._init)
        return init

    def tune(self) -> None:
        """Raise what the kernel limits; to be done after INIT was answered, which resets it."""
        connection = self._connection
        if connection is None or not connection.set_background(MAX_BACKGROUND):
            logger.info("max_background stays at the kernel's default: only root may raise it")
        if connection is None or not connection.set_read_ahead(READ_AHEAD):
            logger.warning("read-ahead stays at 128 KiB: only root may raise it")

    def show(self, shown: Shown) -> Callable[[], None] | None:
        """Let users see the session; return what a process of its own has to do for that."""
        return None

    def settle(self) -> None:
        """Go on from where users see it."""

    def resend(self) -> int:
        """Put what a dead daemon had taken before the next one; return how much that may be."""
        resend(self.handle)
        return self._connection.waiting() if self._connection else 0

    def has_requests(self) -> bool:
        """Say whether the kernel has requests that nobody has taken."""
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        return bool(poll.poll(0))

    def has_ended(self) -> bool:
        """Say whether the connection is over: unmounted, or aborted."""
        if not self.held:
            return False
        poll = select.poll()
        poll.register(self.handle, 0)
        return any(events & select.POLLERR for _, events in poll.poll(0))

    def cut_off(self) -> None:
        """Fail every request, now and later, as far as that may be asked."""
        if self._connection is not None and not self._connection.abort():
            logger.debug("the connection ends when the device is closed")

    def unmount(self, *, lazy: bool = False) -> None:
        """Unmount, out of sight if programs use it; nothing where that has been done."""
        mounted = topmost(self._mountpoint)
        if mounted is None or not self._connection or not self._connection.is_of(mounted):
            return
        try:
            unmount(self._mountpoint, lazy=lazy)
        except Busy:
            self.unmount(lazy=True)
        except (OSError, FusefsError) as exc:
            logger.error("cannot unmount: %s", exc)

    def close(self) -> None:
        """Let go; the connection ends with its last holder."""
        if self.held:
            os.close(self.handle)
            self.handle = -1
