"""fusermount3: the setuid program that mounts and unmounts for those who are not root."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Sequence

from fusefs.errors import MountFailed


class Helper:
    """A run of fusermount3, ended by force if it takes too long."""

    PATIENCE = 5.0
    """Seconds."""

    def __init__(self, arguments: Sequence[str], comm_fd: int | None = None) -> None:
        self._said, told = os.pipe()
        environment = dict(os.environ)
        if comm_fd is not None:
            environment["_FUSE_COMMFD"] = str(comm_fd)
        try:
            self._pid = os.posix_spawnp(
                "fusermount3",
                ["fusermount3", *arguments],
                environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, told, 2)],
                setsigmask=[],
            )
        except FileNotFoundError as exc:
            os.close(self._said)
            raise MountFailed("fusermount3 is not installed (Debian: package fuse3)") from exc
        finally:
            os.close(told)

    def end(self) -> str:
        """Wait for it and return what it said; empty when it did what it should."""
        deadline = time.monotonic() + self.PATIENCE
        said = b""
        while select.select([self._said], [], [], max(0.0, deadline - time.monotonic()))[0]:
            more = os.read(self._said, 4096)
            if not more:
                break
            said += more
        else:
            os.kill(self._pid, signal.SIGKILL)
        os.close(self._said)
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        text = " ".join(said.decode(errors="replace").split())
        return "" if status == 0 else text or f"fusermount3 ended with {status}"
