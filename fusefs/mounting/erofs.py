"""EROFS: a checked bootstrap mounted by the kernel over decoded blobs (Linux 6.12).

The kernel opens the bootstrap and each blob by path when the mount is made, and keeps them open as
long as it lasts. So whoever mounts may not be the one who serves the blobs: the kernel asks for
them while the call goes on.
"""

from __future__ import annotations

import errno
import os
import platform
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fusefs.errors import KernelRefuses

from .connection import set_read_ahead, unnamed_devices
from .newmount import Context, attach
from .options import Options

KIND = "erofs"

READ_AHEAD = 1 << 20
"""Bytes that the kernel reads ahead of a sequential reader."""

_SINCE = (6, 12)
"""The first Linux whose EROFS takes files for devices."""


def obstacle(release: str | None = None, user: int | None = None) -> str:
    """Say why EROFS cannot be had here; empty if it seems that it can."""
    user = os.geteuid() if user is None else user
    if user != 0:
        return "the EROFS driver needs root"
    release = release or platform.release()
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None or (int(found[1]), int(found[2])) < _SINCE:
        return f"the EROFS driver needs Linux 6.12, and this is {release}"
    try:
        Context(KIND).__exit__(None, None, None)
    except OSError as exc:
        if exc.errno == errno.ENODEV:
            return "this kernel has no EROFS"
        return f"the EROFS driver needs to mount, and fsopen says {exc.strerror}"
    return ""


def mount_erofs(
    bootstrap: Path, devices: Iterable[str | Path], mountpoint: Path, options: Options
) -> None:
    """Mount *bootstrap* over *devices* at *mountpoint*; raises KernelRefuses.

    The path of *bootstrap* is what the mount table shows as its source.
    """
    others = unnamed_devices(KIND)
    try:
        with Context(KIND) as context:
            context.set("source", bootstrap)
            for device in devices:
                context.set("device", device)
            _read_past_the_page_cache(context)
            handle = context.mount(options.flags)
        try:
            attach(handle, mountpoint)
        finally:
            os.close(handle)
    except OSError as exc:
        raise KernelRefuses(f"{mountpoint}: the kernel's EROFS: {exc.strerror}") from exc
    # The kernel numbers them by a count of its own: of two mounts at once, both find both.
    for name in unnamed_devices(KIND) - others:
        set_read_ahead(name, READ_AHEAD)


def _read_past_the_page_cache(context: Context) -> None:
    """Have the blobs read directly (Linux 6.14): what EROFS caches need not be cached twice."""
    with suppress(OSError):
        context.set_flag("directio")
