"""Keeper: the process that keeps one mount: supervisor, state folder, log.

In the foreground it is the command's own process; in the background one forked from it, in a
session of its own, which tells the command through a pipe that the mount answers, or why not.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from fusefs.errors import FusefsError, GivenUp, KernelRefuses, MountFailed

from .child import start_time
from .device import Device
from .early import READY, Early
from .erofs import obstacle
from .hidden import HiddenDevice
from .options import Options
from .shown import Shown
from .state import Folder, Record
from .supervisor import SIGNALS, Daemon, Limits, Supervisor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MountSpec:
    """What is to be mounted, and how."""

    image: str
    """As the user named it, without credentials: shown in /proc/mounts and by ``status``."""
    mountpoint: Path
    options: tuple[str, ...] = ()
    """What ``-o`` said."""
    driver: str = "fuse"
    """``auto`` and ``erofs`` as well."""
    driver_reason: str = ""
    """Why it is this driver."""
    foreground: bool = False
    set_up_log: Callable[[Path], None] | None = None
    """Called with the log file in a background mount's processes."""
    state: Path | None = None
    """Another state root than the user's."""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Keeper:
    """Keeps one mount that has been claimed."""

    spec: MountSpec
    mountpoint: Path
    """Resolved."""
    options: Options
    folder: Folder
    control: socket.socket
    early: Early | None = None
    """A daemon that is forked already, while a command waits for this process."""

    def keep(self, daemon: Daemon, ready: Callable[[], None], private: Sequence[int] = ()) -> None:
        """Mount, call *ready*, and return when it has been unmounted; raises MountFailed."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._keep(daemon, ready, private)
        except GivenUp as exc:
            self.folder.failure = str(exc)
            raise
        except BaseException:
            self.folder.remove()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self.folder.remove()

    def _keep(self, daemon: Daemon, ready: Callable[[], None], private: Sequence[int]) -> None:
        """Keep the mount by the driver that is wanted; where the kernel refuses, by the other."""
        driver, reason = self.spec.driver, self.spec.driver_reason
        if driver != "fuse":
            why = obstacle()
            try:
                if why:
                    raise KernelRefuses(f"{self.mountpoint}: {why}")
                self._serve(self._hidden(), driver, daemon, ready, private)
                return
            except KernelRefuses as exc:
                if driver == "erofs":
                    raise
                reason = why or str(exc)
                logger.info("the fuse driver serves the mount: %s", reason)
        device = Device(self.spec.image, self.mountpoint, self.options)
        device.shown = Shown("fuse", reason)
        self._serve(device, "fuse", daemon, ready, private)

    def _hidden(self) -> Device:
        image, options = self.spec.image, self.options
        return HiddenDevice(image, self.mountpoint, options, self.folder.bootstrap)

    def _serve(
        self,
        device: Device,
        driver: str,
        daemon: Daemon,
        ready: Callable[[], None],
        private: Sequence[int],
    ) -> None:
        self.folder.write(self._record(device.shown))

        def shown() -> None:
            self.folder.write(self._record(device.shown))
            ready()

        limits = self.spec.limits
        supervisor = Supervisor(device, self.control, daemon, limits, driver, self.early)
        supervisor.run(shown, private)

    def _record(self, shown: Shown) -> Record:
        spec, me = self.spec, os.getpid()
        started = start_time(me) or 0
        mountpoint = os.fspath(self.mountpoint)
        reason = shown.reason or spec.driver_reason
        return Record(mountpoint, spec.image, shown.driver, reason, me, started)

    def keep_in_background(self, daemon: Daemon) -> None:
        """Fork a process that keeps the mount, and return when it answers; raises MountFailed.

        Be that process, and never return, where a command waits for this one.
        """
        if self.early is not None:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            self.early.log = os.fspath(self.folder.log)
            self._be_background(daemon, self.early.told)
        heard, told = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if not pid:
            os.close(heard)
            self._be_background(daemon, told)
        os.close(told)
        with os.fdopen(heard, "rb") as pipe:
            try:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
                said = pipe.read()
            except KeyboardInterrupt:
                os.kill(pid, signal.SIGTERM)
                raise
        if said != READY:
            why = said.decode(errors="replace") or "its supervisor died"
            raise MountFailed(why)

    def _be_background(self, daemon: Daemon, told: int) -> NoReturn:
        """Become the background process; never returns."""
        code, waiting = 1, True

        def tell(word: bytes) -> None:
            nonlocal waiting
            if waiting:  # else the handle may be another file's by now
                waiting = False
                os.write(told, word)
                os.close(told)

        try:
            self._leave_terminal()
            self.keep(daemon, lambda: tell(READY), [told])
            code = 0
        except FusefsError as exc:
            logger.error("%s", exc)
            tell(str(exc).encode(errors="backslashreplace"))
        except BaseException as exc:
            # The end of this process: nothing that stands above it on the stack may run here.
            logger.exception("the supervisor failed")
            tell(f"internal error: {exc!r}".encode(errors="backslashreplace"))
        finally:
            logging.shutdown()
            os._exit(code)

    def _leave_terminal(self) -> None:
        os.setsid()
        os.chdir("/")
        log = os.open(self.folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open("/dev/null", os.O_RDONLY)
        for source, handle in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, handle)
        os.close(log)
        os.close(null)
        if self.spec.set_up_log is not None:
            self.spec.set_up_log(self.folder.log)
