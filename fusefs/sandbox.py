"""A command inside an image, apart from this machine: own root, processes, network and names.

``Sandbox`` is the caller's end; ``main`` is a process of its own that makes the namespaces (a user
namespace, too, where it is not root), puts a writable layer in memory over the image, and becomes
the command, as process 1 in there. What belongs to it ends with it, and it with its caller.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from .errors import FusefsError

FAILED = 125
"""Exit code where there is no sandbox to be had; 126 and 127 are the command's, as in a shell."""

_CODE = """\
import sys
sys.path[:] = sys.argv[2:]
from fusefs.sandbox import main
main(sys.argv[1])
"""
_HOME = str(Path(__file__).parents[1])

_NEWUSER, _NEWPID, _NEWNET = 0x1000_0000, 0x2000_0000, 0x4000_0000
_NEWNS, _NEWUTS, _NEWIPC = 0x2_0000, 0x400_0000, 0x800_0000
_APART = _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET

_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8
_BIND, _MOVE, _REC, _PRIVATE = 0x1000, 0x2000, 0x4000, 0x4_0000

_PDEATHSIG, _CAPBSET_DROP, _NO_NEW_PRIVS = 1, 24, 38
_KEPT = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10})
"""Capabilities left to the command: over files (but no devices), users, signals and low ports."""
_LAST_CAPABILITY = 63

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
)

_SCRATCH = ("tmp", "var/tmp", "run")

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_IFREQ = struct.Struct("16sh14x")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What is run where."""

    root: str
    """The mounted image."""
    work: str
    """An empty folder, to be mounted over in the sandbox alone."""
    words: Sequence[str]
    environment: Mapping[str, str]
    folder: str
    """Where it begins, in the image."""

    def start(self) -> subprocess.Popen[bytes]:
        """Start it; what it says goes to stderr."""
        told = json.dumps(asdict(self))
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _CODE, told, _HOME, *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            start_new_session=True,
        )


def main(told: str) -> None:
    """Be the sandbox that *told* describes, and end as the command does."""
    _call("prctl", _PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    sandbox = Sandbox(**json.loads(told))
    try:
        _separate()
        child = os.fork()
        if not child:
            _become(sandbox)
    except (OSError, FusefsError) as exc:
        sys.stderr.write(f"naiad: no sandbox: {exc}\n")
        os._exit(FAILED)

    def end(number: int, frame: FrameType | None) -> None:
        os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(code if code >= 0 else 128 - code)


def _separate() -> None:
    """Leave the machine's namespaces; the next child is the first process of its own."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _call("unshare", _APART)
        return
    _call("unshare", _APART | _NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _become(sandbox: Sandbox) -> None:
    """Be the command; never returns."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _call("prctl", _PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _raise_loopback()
    _mount("none", "/", "", _REC | _PRIVATE)
    root = _layered(sandbox)
    _furnish(root)
    os.chdir(root)
    _mount(".", "/", "", _MOVE)
    os.chroot(".")
    os.chdir(sandbox.folder)
    for capability in range(_LAST_CAPABILITY + 1):
        if capability not in _KEPT:
            with suppress(OSError):  # no such capability
                _call("prctl", _CAPBSET_DROP, capability, 0, 0, 0)
    _call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
    environment = dict(sandbox.environment)
    try:
        os.execvpe(sandbox.words[0], list(sandbox.words), environment)
    except OSError as exc:
        sys.stderr.write(f"naiad: {sandbox.words[0]}: {exc.strerror}\n")
        os._exit(127 if isinstance(exc, FileNotFoundError) else 126)


def _layered(sandbox: Sandbox) -> Path:
    """Return the image with a writable layer over it; read-only where the kernel has none."""
    work = Path(sandbox.work)
    _mount("naiad", work, "tmpfs", _NOSUID | _NODEV, "mode=755")
    for name in ("upper", "work", "root"):
        (work / name).mkdir(0o755)
    root = work / "root"
    layers = f"lowerdir={_quoted(sandbox.root)},upperdir={work}/upper,workdir={work}/work"
    for more in (",userxattr" if os.geteuid() or _in_user_namespace() else "", ""):
        try:
            _mount("naiad", root, "overlay", _NOSUID | _NODEV, layers + more)
        except OSError:
            continue
        return root
    _mount(sandbox.root, root, "", _BIND)
    return root


def _quoted(path: str) -> str:
    return path.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")


def _in_user_namespace() -> bool:
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def _furnish(root: Path) -> None:
    """Give *root* what programs rely on: /proc, /dev, and somewhere to write."""
    for name in ("proc", "dev", "tmp"):
        with suppress(OSError):  # there, or there cannot be one
            (root / name).mkdir(0o1777 if name == "tmp" else 0o755)
    with suppress(OSError):
        _mount("proc", root / "proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    with suppress(OSError):
        _mount("naiad", root / "dev", "tmpfs", _NOSUID | _NOEXEC, "mode=755")
        for name in _DEVICES:
            (root / "dev" / name).touch()
            _mount(f"/dev/{name}", root / "dev" / name, "", _BIND)
        for target, name in _LINKS:
            (root / "dev" / name).symlink_to(target)
        (root / "dev" / "shm").mkdir(0o1777)
    if _in_user_namespace() or not os.access(root / "tmp", os.W_OK):
        # Folders of users that a user namespace does not know cannot be written to.
        for name in _SCRATCH:
            with suppress(OSError):
                _mount("naiad", root / name, "tmpfs", _NOSUID | _NODEV, "mode=1777")


def _raise_loopback() -> None:
    """Give the command a network of itself alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle, suppress(OSError):
        asked = _IFREQ.pack(b"lo", 0)
        _, flags = _IFREQ.unpack(fcntl.ioctl(handle, _SIOCGIFFLAGS, asked))
        fcntl.ioctl(handle, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))


def _mount(source: str, target: str | Path, kind: str, flags: int, data: str = "") -> None:
    words = [os.fsencode(word) for word in (source, target, kind)]
    _call("mount", *words, ctypes.c_ulong(flags), data.encode())


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
