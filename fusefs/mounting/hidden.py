"""HiddenDevice: a FUSE mount that has no place, with the kernel's EROFS in front of it.

The session is mounted and attached nowhere. When its daemon serves, a process of its own mounts
EROFS where the user wants it (`fusefs.mounting.erofs`); from then on EROFS' open files keep the
session alive, and when EROFS is unmounted, by whatever means, the connection ends: nothing is left
behind, whoever died. If the daemon finds that the image is none for EROFS, the session itself is
attached.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from fusefs.errors import Busy, FusefsError, MountFailed

from . import erofs
from .connection import Connection
from .device import Device
from .kernel import KIND, READ_BUFFER, mount_nowhere, unmount
from .mountinfo import topmost
from .newmount import attach, device_of
from .options import Options
from .shown import Shown

logger = logging.getLogger(__name__)


class HiddenDevice(Device):
    """One mount, as its supervisor holds it."""

    def __init__(self, image: str, mountpoint: Path, options: Options, bootstrap: Path) -> None:
        """Mount; *bootstrap* will be a link to the image's own. Raises MountFailed."""
        self._bootstrap = bootstrap
        self._place = -1
        """A handle of the session's mount, until something else keeps that."""
        super().__init__(image, mountpoint, options)

    def _mount(self) -> None:
        self.handle, self._place = mount_nowhere(self._image, self._options)
        self._connection = Connection(device_of(self._place))
        self._init = os.read(self.handle, READ_BUFFER)

    @property
    def private(self) -> Sequence[int]:
        """Handles that no daemon may inherit, or it would keep its own session alive."""
        return () if self._place < 0 else (self._place,)

    def remount(self) -> None:
        """Refuse: a connection that ended cannot be had again under EROFS."""
        raise MountFailed(f"{self}: the connection ended")

    def show(self, shown: Shown) -> Callable[[], None] | None:
        """Attach the session, or return what mounts EROFS, for a process of its own."""
        self.shown = shown
        if shown.driver == "fuse":
            self._attach()
            return None
        with suppress(FileNotFoundError):
            self._bootstrap.unlink()
        self._bootstrap.symlink_to(shown.bootstrap)
        devices = [f"/proc/self/fd/{self._place}/{name}" for name in shown.devices]
        return lambda: erofs.mount_erofs(self._bootstrap, devices, self._mountpoint, self._options)

    def settle(self) -> None:
        """Let go of the session's mount: it is attached, or kept by EROFS."""
        if self._place >= 0:
            os.close(self._place)
            self._place = -1

    def _attach(self) -> None:
        try:
            attach(self._place, self._mountpoint)
        except OSError as exc:
            raise MountFailed(f"{self}: move_mount: {exc.strerror}") from exc

    def unmount(self, *, lazy: bool = False) -> None:
        """Unmount, out of sight if programs use it; nothing where that has been done."""
        mounted = topmost(self._mountpoint)
        if mounted is not None and mounted.kind == KIND:
            super().unmount(lazy=lazy)
        elif mounted is not None and mounted.is_erofs_of(self._bootstrap):
            try:
                unmount(self._mountpoint, lazy=lazy)
            except Busy:
                unmount(self._mountpoint, lazy=True)
            except (OSError, FusefsError) as exc:
                logger.error("cannot unmount: %s", exc)

    def close(self) -> None:
        """Let go; the connection ends with its last holder."""
        self.settle()
        super().close()
