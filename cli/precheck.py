"""A local image's metadata, checked by a process of its own while the daemon's modules load.

The kernel is given metadata only when it has been checked, which takes as long as the daemon's
imports do, and those leave a processor idle. So where an image's bootstrap lies on this machine,
the daemon forks who checks it before it imports anything. What comes of it is the digest of the
bytes that were checked, and nothing where anything was not as it should be: then the daemon checks.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from chunkstore import Algorithm, Digest

LARGEST = 64 << 20
"""Bytes of a bootstrap that is read into memory for this."""

PATIENCE = 10.0
"""Seconds until the daemon checks for itself."""

_DIGEST = 128
"""Bytes that a digest's text may take."""


class Precheck:
    """A check that goes on; `end` it."""

    def __init__(self, pid: int | None, handle: int) -> None:
        """*pid* is None where another process has it checked, and gives but the *handle*."""
        self.pid = pid
        self._handle = handle
        """Where the digest comes from; -1 when it has ended."""

    @classmethod
    def begin(cls, image: str, cache: Path) -> Precheck | None:
        """Fork who checks *image*, unless *cache* knows it as checked; None: not on this machine.

        This process must have one thread. The other one closes all handles.
        """
        path = _kept_here(image)
        if path is None:
            return None
        heard, told = os.pipe()
        pid = os.fork()
        if not pid:
            _tell(told, path, cache)
        os.close(told)
        return cls(pid, heard)

    @classmethod
    def apart(cls, image: str, cache: Path) -> Sequence[int]:
        """Have *image* checked for another process, and return the handle for that, if any.

        Who checks is nobody's child, and ends when it has done so.
        """
        path = _kept_here(image)
        if path is None:
            return ()
        heard, told = os.pipe()
        between = os.fork()
        if not between:
            try:
                if not os.fork():
                    _tell(told, path, cache)
            finally:
                os._exit(0)
        os.close(told)
        os.waitpid(between, 0)
        return (heard,)

    def vouches_for(self, digest: Digest) -> bool:
        """Wait for its end and say whether it has found no fault in what hashes to *digest*."""
        said, deadline = b"", time.monotonic() + PATIENCE
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            more = os.read(self._handle, _DIGEST)
            said += more
            if not more:
                break
        self.end()
        return said == str(digest).encode()

    def end(self) -> None:
        """End it, whether or not it is at its end."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
            if self.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)


def _kept_here(image: str) -> Path | None:
    """Return where the bootstrap of *image* is, if it is on this machine and not too large."""
    path = Path(image) / "image.boot"
    try:
        return path if 0 < path.stat().st_size <= LARGEST else None
    except OSError:
        return None


def _tell(told: int, path: Path, cache: Path) -> NoReturn:
    """Be the process that checks, and say to *told* what comes of it."""
    try:
        os.dup2(told, 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        os.write(3, _checked(path, cache).encode())
    finally:
        os._exit(0)


def _checked(path: Path, cache: Path) -> str:
    """Return the digest of a bootstrap in which nothing was found; empty where there is no need."""
    rafs, check = importlib.import_module("rafs"), importlib.import_module("rafs.check")
    data = path.read_bytes()
    digest = Digest.of(data, Algorithm.SHA256)
    if importlib.import_module("cli.bootstraps").is_noted(cache, digest):
        return ""
    return "" if any(check.findings(rafs.Bootstrap.decode(data))) else str(digest)
