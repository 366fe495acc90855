"""The supervisor: owns /dev/fuse, so that the mount outlives its daemon.

It reads the kernel's INIT request once and keeps it. Each daemon, the first and every later one,
finds that request in a socket that it gives to libfuse as the mounted device, and puts the real
device in its place when INIT has been handled (``Operations.init``). When a daemon dies, the
supervisor makes the kernel send again what that one had taken, and starts the next. On a kernel
that does not send again, the device is not held: the mount dies with its daemon and is made anew.

This process imports no trio, pyfuse3 or HTTP: it must stay small, and fork cleanly.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from fusefs.errors import FusefsError, GivenUp, KernelRefuses, MountFailed

from .child import TICK, Child, describe, is_outside, start
from .device import Device
from .early import Early
from .kernel import resends
from .restarts import Death, Restarts
from .shown import Shown
from .vitals import Vitals

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the supervisor waits for what, in seconds."""

    heartbeat: float = 20.0
    """A daemon whose event loop has not run for so long is replaced."""
    readiness: float = 60.0
    """A daemon's event loop must run first within this, which on a machine where dozens start at
    once can take longer than a beat, and a later one must serve; the first may wait for its
    origin."""
    showing: float = 60.0
    """What the kernel gets to mount EROFS over the first daemon's files."""
    farewell: float = 2.0
    """What a daemon gets to end by itself when the mount ends."""
    resend: bool = field(default_factory=resends)
    """Whether the kernel gives a new daemon the old one's requests."""

    def exceeded(self, now: float, started: float, beat: float, *, must_serve: bool) -> str:
        """Say which limit a daemon *started* then has exceeded, whose loop ran last at *beat*."""
        begun = beat > started
        if now - beat > (self.heartbeat if begun else self.readiness):
            return f"did not answer for {now - beat:.0f} s"
        if must_serve and now - started > self.readiness:
            return f"was not ready after {now - started:.0f} s"
        return ""


@dataclass(frozen=True, slots=True)
class Handoff:
    """What a daemon process gets from its supervisor."""

    device: int
    """/dev/fuse, mounted."""
    init: int
    """A socket that holds the INIT request; *device* takes its place when that is handled."""
    control: socket.socket
    channel: socket.socket
    """To the supervisor, which hears ``ready SHOWN``, ``failed WHY`` and ``stop``, and says
    ``stop``."""
    vitals: Vitals
    restarts: int
    last_death: str
    """Why the daemon before this one ended; empty for the first."""
    driver: str = "fuse"
    """``erofs``, or ``auto`` where the daemon may choose."""


Daemon = Callable[[Handoff], None]


class Supervisor:
    """Keeps one mount alive; `run` returns when it has ended."""

    def __init__(
        self,
        device: Device,
        control: socket.socket,
        daemon: Daemon,
        limits: Limits,
        driver: str = "fuse",
        early: Early | None = None,
    ) -> None:
        """Serve *device* by *daemon*; callers of *control*, which listens, wait over restarts.

        *early* is the first daemon, if that is forked already.
        """
        self._device = device
        self._driver = driver
        self._control = control
        self._daemon = daemon
        self._limits = limits
        self._ready: Callable[[], None] | None = None
        """Called when the first daemon serves, and then forgotten."""
        self._private: Sequence[int] = ()
        """Pipes to who waits for the mount, which ends if that one does. The first daemon may not
        inherit them; closed when it is ready."""
        self._wakeup: Sequence[int] = ()
        self._early = early
        self._vitals = (early and early.vitals) or Vitals()
        self._restarts = Restarts()
        self._last_death = ""
        self._child: Child | None = None
        self._unreaped: list[Child] = []
        self._serves = False
        """Whether the daemon that lives now has said that it is ready."""
        self._started = 0.0
        self._shower: Child | None = None
        """What makes the kernel show the first daemon's session, while it is at work."""
        self._due = 0.0
        """When the next daemon is to be started, while there is none."""
        self._resent = 0
        """Requests that the kernel sent to the daemon that lives now because another died."""

    def run(self, ready: Callable[[], None], private: Sequence[int] = ()) -> None:
        """Keep the mount served until it is unmounted; call *ready* when it answers first.

        *private* are pipes that no daemon may inherit; *ready* closes them, and a mount that does
        not answer yet ends when nobody reads one any more. Raises GivenUp, which
        leaves a dead mount behind, so that nobody takes it for an empty folder; and MountFailed,
        which leaves none.
        """
        self._ready = ready
        with _signals() as wakeup:
            self._private, self._wakeup = private, wakeup
            try:
                while self._step(wakeup[0]):
                    pass
            except GivenUp:
                self._end()
                raise
            except KernelRefuses:
                self._device.unmount()
                self._end()
                raise
            except (FusefsError, OSError) as exc:
                self._device.unmount()
                self._end()
                raise MountFailed(f"{self._device}: {exc}") from exc
            self._device.unmount()
            self._end()

    def _start(self, now: float) -> None:
        self._started, self._serves = now, False
        self._vitals.begin(now)
        with self._device.init_socket() as init:
            close = [*self._private, *self._wakeup, *self._device.private]
            self._child = self._handed(init) or start(
                lambda channel: self._serve(init, channel), close
            )

    def _handed(self, init: socket.socket) -> Child | None:
        """Have the daemon serve that is forked already, if there is one."""
        if self._early is None:
            return None
        handles = (self._device.handle, init.fileno(), self._control.fileno())
        return self._early.hand(handles, self._driver)

    def _serve(self, init: socket.socket, channel: socket.socket) -> None:
        """Be the daemon, in its process."""
        handles = (self._device.handle, init.detach(), self._control, channel)
        self._daemon(
            Handoff(*handles, self._vitals, self._restarts.total, self._last_death, self._driver)
        )

    def _step(self, wakeup: int) -> bool:
        """Wait for something to happen and act on it; False: the mount has ended."""
        happened = self._wait(wakeup)
        if wakeup in happened and _asked_to_end(wakeup):
            return False
        if not happened.isdisjoint(self._private):  # who waits for the mount is gone
            return False
        if self._device.has_ended():
            return False
        self._unreaped = [child for child in self._unreaped if not child.reap()]
        now = time.monotonic()
        if self._shower is not None:
            self._look_at_shower(self._shower, now)
        if self._child is not None:
            return self._listen(self._child) and self._look(self._child, now)
        if now >= self._due:
            self._start(now)
        return True

    def _wait(self, wakeup: int) -> frozenset[int]:
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        for handle in self._private:
            poll.register(handle, 0)  # POLLERR alone, when nobody reads it any more
        if self._shower is not None:
            poll.register(self._shower.handle, select.POLLIN)
        patience = TICK
        if self._child is not None:
            poll.register(self._child.handle, select.POLLIN)
            if self._child.speaks:
                poll.register(self._child.channel, select.POLLIN)
        else:
            patience = max(0.0, min(TICK, self._due - time.monotonic()))
        # Not for the device: the kernel wakes everybody who waits for it at every request, which
        # took readers 15 us each, and their daemon its processor. A daemon ends with its mount.
        return frozenset(handle for handle, _ in poll.poll(patience * 1000))

    def _listen(self, child: Child) -> bool:
        """Act on what the daemon says; False when it asks for the end."""
        for word, rest in child.said():
            if word == "ready":
                self._became_ready(rest)
            elif word == "failed":
                child.fault = rest
            elif word == "stop":
                return False
        return True

    def _became_ready(self, told: str) -> None:
        self._serves = True
        self._device.tune()
        if self._ready is not None and self._shower is None:
            work = self._device.show(Shown.decode(told))
            if work is None:
                self._is_shown()
            else:
                self._shower = start(partial(_tell, work), [*self._private, *self._wakeup])
        if not self._limits.resend:
            self._device.close()

    def _is_shown(self) -> None:
        self._device.settle()
        if self._ready is not None:
            self._ready()
        self._ready, self._private = None, ()

    def _look_at_shower(self, shower: Child, now: float) -> None:
        """Go on when the kernel shows the session; raises KernelRefuses."""
        for word, rest in shower.said():
            if word == "failed":
                shower.fault = rest
        code = shower.exit_code()
        if code is None:
            if now - self._started > self._limits.showing:
                raise KernelRefuses(f"{self._device}: no EROFS after {self._limits.showing:.0f} s")
            return
        self._shower = None
        shower.close()
        self._unreaped.append(shower)
        if code != 0 or shower.fault:
            raise KernelRefuses(shower.fault or f"{self._device}: what mounts {describe(code)}")
        self._is_shown()

    def _look(self, child: Child, now: float) -> bool:
        """Act on how the daemon is; False when it has ended because the mount has."""
        code = child.exit_code()
        if code is None:
            self._check_patience(child, now)
            return True
        if code == 0 and not self._device.held:
            return False
        self._died(child, code, now)
        return True

    def _check_patience(self, child: Child, now: float) -> None:
        if child.fault:
            return
        must_serve = not self._serves and self._ready is None
        beat = self._vitals.beat
        fault = self._limits.exceeded(now, self._started, beat, must_serve=must_serve)
        if fault:
            child.kill(fault)

    def _died(self, child: Child, code: int, now: float) -> None:
        self._child = None
        child.close()
        self._unreaped.append(child)
        if self._ready is not None and self._shower is None:
            raise MountFailed(child.fault or f"the daemon {describe(code)} before it was ready")
        self._last_death = child.fault or describe(code)
        logger.warning("the daemon died: %s pid=%d", self._last_death, child.pid)
        progress = self._prepare_next()
        killed = is_outside(code) and not child.fault
        delay = self._restarts.died(Death(now, killed, progress, self._last_death))
        if delay is None:
            raise GivenUp(
                f"{self._device}: given up: {self._restarts}; the last one: {self._last_death}"
            )
        self._due = now + delay

    def _prepare_next(self) -> bool:
        """Put the dead daemon's requests before the next one; say whether it had got on.

        Where they are lost, a new mount takes the place of the one that died.
        """
        if not self._device.held:
            self._device.remount()
            return True
        answered, before = self._vitals.answered, self._resent
        self._resent = self._device.resend()
        return answered > before or not self._device.has_requests()

    def _end(self) -> None:
        """Fail all readers and end the daemon."""
        self._device.cut_off()
        for child in (self._shower, self._child):
            if child is not None:
                child.ask_to_stop()
                if child.is_stopped or not child.dies(self._limits.farewell):
                    child.kill()
                    child.dies(1.0)
                child.close()
                child.reap()
        self._shower = self._child = None
        self._device.close()


def _tell(work: Callable[[], None], channel: socket.socket) -> None:
    """Do *work* and say why it failed, if it did; in a process of its own."""
    try:
        work()
    except FusefsError as exc:
        channel.send(f"failed {exc}".encode())


SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What ends a mount; blocked until `Supervisor.run` listens, so that none leaves half of one."""


@contextmanager
def _signals() -> Iterator[tuple[int, int]]:
    """Yield a handle that signals are read from, and its other end; they interrupt nothing."""
    heard, rung = socket.socketpair()
    heard.setblocking(False)
    rung.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    old = signal.set_wakeup_fd(rung.fileno(), warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield heard.fileno(), rung.fileno()
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        heard.close()
        rung.close()


def _asked_to_end(wakeup: int) -> bool:
    return any(number in SIGNALS for number in os.read(wakeup, 4096))
