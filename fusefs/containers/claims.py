"""Claims: what one snapshotter has for itself, which are its folder and its sockets."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fusefs.errors import Busy, FusefsError

from .pulls import SUFFIX


@contextmanager
def claimed(root: Path, address: Path) -> Iterator[None]:
    """Have *root* and *address* alone while the block lasts; changes nothing that is another's.

    Raises Busy where another has one of them, FusefsError where nothing can listen at *address*.
    """
    with (
        _locked(root / "lock", f"{root}: another snapshotter uses it"),
        _locked(address.with_name(f"{address.name}.lock"), _taken(address)),
    ):
        for path in (address, control_of(address)):
            clear(path)
        yield


def control_of(address: Path) -> Path:
    """Return the socket for pulls of the snapshotter at *address*."""
    return address.with_name(f"{address.name}{SUFFIX}")


def clear(path: Path) -> None:
    """Remove a socket that nobody listens at.

    Raises Busy where somebody does, FusefsError where there can be none.
    """
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)
        try:
            caller.connect(os.fspath(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            _remove(path)
            return
        except BlockingIOError:
            pass  # its queue is full
        except OSError as exc:
            raise FusefsError(f"{path}: cannot listen: {exc.strerror or exc}") from exc
    raise Busy(_taken(path))


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FusefsError(f"{path}: cannot listen: it is there and is no socket")
        path.unlink()


def _taken(path: Path) -> str:
    return f"{path}: somebody listens there already"


@contextmanager
def _locked(path: Path, said: str) -> Iterator[None]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # To be written, as NFS locks only such; never removed, as one that waits may hold it open.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Busy(said) from exc
        yield
    finally:
        os.close(descriptor)
