"""What is known of mounts between commands: a folder per mount below the state root.

::

    /run/naiad, $XDG_RUNTIME_DIR/naiad or a folder of the user's in the temporary one   0700
    ├── lock                      held while a mount is claimed
    └── NAME-HASH                 one mount: its mountpoint's last part and a hash of the whole
        ├── mount.json            what and where (`Record`)
        ├── bootstrap             a link to the image's, where EROFS is mounted
        ├── control               a listening socket, 0600, while supervisor or daemon live
        ├── failure               why the mount was given up, if it was
        └── log
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from fusefs.errors import MountFailed

from .child import start_time


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``mount.json`` says."""

    mountpoint: str
    image: str
    driver: str
    driver_reason: str
    supervisor: int
    """Process id."""
    supervisor_start: int
    """When it was started, in clock ticks since boot: process ids come again."""

    @property
    def is_kept(self) -> bool:
        """Say whether that supervisor lives."""
        return start_time(self.supervisor) == self.supervisor_start


class Folder:
    """One mount's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log"
        self.bootstrap = path / "bootstrap"
        """What an EROFS mount has for its source."""

    @property
    def alive(self) -> bool:
        """Say whether a supervisor or daemon of the mount lives, be it stopped or busy."""
        try:
            self.connect(0.0).close()
        except TimeoutError:
            return True
        except OSError:
            return False
        return True

    def listen(self) -> socket.socket:
        """Make the control socket."""
        control = socket.socket(socket.AF_UNIX)
        with self._socket_path() as name:
            control.bind(name)
        (self.path / "control").chmod(0o600)
        control.listen(16)
        return control

    def connect(self, patience: float) -> socket.socket:
        """Return a connection to whoever serves the mount.

        Raises OSError, TimeoutError where for *patience* seconds too many others wait for one.
        """
        caller = socket.socket(socket.AF_UNIX)
        # Python's own timeout does not cover it: a queue that is full is EAGAIN, and not awaited.
        whole, part = divmod(max(1, int(patience * 1e6)), 1_000_000)  # zero would be for ever
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", whole, part))
        try:
            with self._socket_path() as name:
                caller.connect(name)
        except BlockingIOError as exc:
            caller.close()
            raise TimeoutError("too many wait for it") from exc
        except OSError:
            caller.close()
            raise
        return caller

    @contextmanager
    def _socket_path(self) -> Iterator[str]:
        """Yield a name of the socket that fits the 107 bytes that it may have."""
        folder = os.open(self.path, os.O_PATH | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{folder}/control"
        finally:
            os.close(folder)

    def write(self, record: Record) -> None:
        """Replace mount.json at once."""
        part = self.path / "mount.json.part"
        part.write_bytes(msgspec.json.encode(record))
        part.replace(self.path / "mount.json")

    def read(self) -> Record | None:
        """Return what mount.json says; None where it is missing or broken."""
        try:
            return msgspec.json.decode((self.path / "mount.json").read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    @property
    def failure(self) -> str:
        """Why the mount was given up, or empty."""
        try:
            return (self.path / "failure").read_text(errors="replace")
        except OSError:
            return ""

    @failure.setter
    def failure(self, why: str) -> None:
        (self.path / "failure").write_text(why)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)


class StateRoot:
    """The folder of all mounts of this user."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or _default_root()

    def folder(self, mountpoint: Path) -> Folder:
        """Return the folder of *mountpoint*, a resolved path; it need not exist."""
        whole = os.fsencode(mountpoint)
        name = re.sub(r"[^0-9A-Za-z._-]", "_", mountpoint.name)[:40] or "root"
        return Folder(self.path / f"{name}-{hashlib.sha256(whole).hexdigest()[:12]}")

    def folders(self) -> list[Folder]:
        """Return the folders of all mounts that left one."""
        if not self.path.is_dir():
            return []
        return [Folder(path) for path in sorted(self.path.iterdir()) if path.is_dir()]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the root where it is missing and hold its lock; raises MountFailed if unsafe."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise MountFailed(
                f"{self.path}: not a folder that only this user may enter (mode 0700)"
            )
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _default_root() -> Path:
    if os.geteuid() == 0:
        return Path("/run/naiad")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime:
        return Path(runtime) / "naiad"
    return Path(tempfile.gettempdir()) / f"naiad-{os.geteuid()}"
