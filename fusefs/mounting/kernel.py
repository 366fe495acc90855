"""The kernel's side of a FUSE mount: /dev/fuse, mount(2), umount2(2), fusermount3.

A root process mounts and unmounts itself. Others ask fusermount3, which is setuid root and hands
the opened device back over the socket named in ``_FUSE_COMMFD``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import socket
import stat
from pathlib import Path

from fusefs.errors import Busy, MountFailed

from .helper import Helper
from .newmount import Context
from .options import Options

FUSE_CONF = Path("/etc/fuse.conf")
KIND = "fuse.naiad"

READ_BUFFER = 1 << 20
"""The device refuses a read of less than 8 KiB; a request here is never larger than this."""

_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_RESEND = (16).to_bytes(4, "little") + (7).to_bytes(4, "little") + bytes(8)
"""A fuse_out_header alone: its length, FUSE_NOTIFY_RESEND where an error would stand, unique 0."""

_libc = ctypes.CDLL(None, use_errno=True)


def resends(release: str | None = None) -> bool:
    """Say whether this kernel gives a new daemon the requests of a dead one (Linux 6.9)."""
    found = re.match(r"(\d+)\.(\d+)", release or platform.release())
    return found is not None and (int(found[1]), int(found[2])) >= (6, 9)


def may_allow_other() -> bool:
    """Say whether this user may let others read its mounts."""
    if os.geteuid() == 0:
        return True
    try:
        lines = FUSE_CONF.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def mount(mountpoint: Path, source: str, options: Options) -> int:
    """Mount a FUSE file system at *mountpoint* and return its device, ours to close.

    Raises MountFailed.
    """
    words = ["default_permissions"]
    wanted = options.allow_other
    if may_allow_other() if wanted is None else wanted:
        words.append("allow_other")
    if os.geteuid() == 0:
        return _mount_as_root(mountpoint, source, options.flags, words)
    name = source.replace("\\", "\\\\").replace(",", "\\,")
    words += [*options.words, f"fsname={name}", "subtype=naiad"]
    return _mount_by_helper(mountpoint, ",".join(words))


def _mount_as_root(mountpoint: Path, source: str, flags: int, words: list[str]) -> int:
    device = _open_device()
    ids = f"fd={device},rootmode={stat.S_IFDIR:o},user_id={os.geteuid()},group_id={os.getegid()}"
    data = ",".join([ids, *words])
    try:
        _mount(source, mountpoint, KIND, flags, data)
    except OSError as exc:
        os.close(device)
        raise MountFailed(f"{mountpoint}: mount: {exc.strerror}") from exc
    return device


def mount_nowhere(source: str, options: Options) -> tuple[int, int]:
    """Make a FUSE mount that has no place yet; return its device and the mount's handle.

    Only root may. Raises MountFailed.
    """
    device = _open_device()
    try:
        with Context("fuse") as context:
            context.set("source", source)
            context.set("subtype", "naiad")
            context.set("fd", str(device))
            context.set("rootmode", f"{stat.S_IFDIR:o}")
            context.set("user_id", str(os.geteuid()))
            context.set("group_id", str(os.getegid()))
            context.set_flag("default_permissions")
            if options.allow_other is not False:
                context.set_flag("allow_other")
            context.set_flag("ro")
            return device, context.mount(options.flags)
    except OSError as exc:
        os.close(device)
        raise MountFailed(f"{source}: mount: {exc.strerror}") from exc


def _open_device() -> int:
    try:
        return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        raise MountFailed(f"/dev/fuse: {exc.strerror} (is the fuse module loaded?)") from exc


def _mount(source: str, target: Path, kind: str, flags: int, data: str) -> None:
    words = (source, os.fspath(target), kind)
    encoded = [os.fsencode(word) for word in words]
    if _libc.mount(*encoded, ctypes.c_ulong(flags), os.fsencode(data)) != 0:
        raise _os_error()


def _mount_by_helper(mountpoint: Path, words: str) -> int:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        with its:
            os.set_inheritable(its.fileno(), True)
            helper = Helper(["-o", words, "--", os.fspath(mountpoint)], its.fileno())
        ours.settimeout(Helper.PATIENCE)
        try:
            _, handles, _, _ = socket.recv_fds(ours, 16, 1)
        except OSError as exc:
            helper.end()
            raise MountFailed(f"{mountpoint}: fusermount3: {exc}") from exc
    said = helper.end()
    if not handles:
        raise MountFailed(f"{mountpoint}: {said or 'fusermount3 gave no device'}")
    os.set_inheritable(handles[0], False)
    return handles[0]


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """Unmount what lies at *mountpoint*; *lazy* takes it out of sight though it is in use.

    Raises Busy, or OSError when it is not ours to unmount.
    """
    if os.geteuid() != 0:
        _unmount_by_helper(mountpoint, lazy)
        return
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)
    if _libc.umount2(os.fsencode(mountpoint), flags) != 0:
        error = _os_error()
        if error.errno == errno.EBUSY:
            raise Busy(f"{mountpoint}: programs still use it") from error
        raise error


def _unmount_by_helper(mountpoint: Path, lazy: bool) -> None:
    said = Helper(["-u", *(["-z"] if lazy else []), "--", os.fspath(mountpoint)]).end()
    if "busy" in said:
        raise Busy(f"{mountpoint}: programs still use it")
    if said:
        raise OSError(errno.EPERM, said, os.fspath(mountpoint))


def resend(device: int) -> None:
    """Make the kernel send again what a dead daemon had taken and not answered."""
    os.write(device, _RESEND)


def _os_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
