"""Child: a forked process that the supervisor watches.

``wait()`` is no measure of its death: a thread that is blocked in the kernel keeps a killed process
from being reaped. The main thread's state in /proc is: a zombie runs no Python any more.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

TICK = 0.25
"""Seconds between looks at a main thread's state: no event tells that of a stuck process."""

_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Signals that mean somebody's will (or the kernel's, out of memory), not a crash."""


class Child:
    """One daemon process and the supervisor's end of the channel to it."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.channel = channel
        self.handle = os.pidfd_open(pid)
        self.fault = ""
        """Why it is about to end, where that is its own doing."""

    def exit_code(self) -> int | None:
        """Return the exit code of a dead main thread, minus the signal's number; else None."""
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return 0
        fields = text.rpartition(")")[2].split()
        return os.waitstatus_to_exitcode(int(fields[-1])) if fields[0] in "ZX" else None

    @property
    def is_stopped(self) -> bool:
        """Say whether a signal has stopped it, so that it does nothing by itself."""
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return text.rpartition(")")[2].split()[0] in "Tt"

    @property
    def speaks(self) -> bool:
        """Say whether its end of the channel is open."""
        return self.channel.fileno() >= 0

    def said(self) -> Iterator[tuple[str, str]]:
        """Return what it has said since it was last heard: a word and the rest."""
        while self.speaks:
            try:
                message = self.channel.recv(1 << 16).decode(errors="replace")
            except OSError:
                return
            if not message:
                self.channel.close()
            word, _, rest = message.partition(" ")
            yield word, rest

    def ask_to_stop(self) -> None:
        """Tell it to end by itself, if it still listens."""
        with suppress(OSError):
            self.channel.send(b"stop")

    def kill(self, fault: str = "") -> None:
        """End it without asking, for *fault*."""
        self.fault = self.fault or fault
        signal.pidfd_send_signal(self.handle, signal.SIGKILL)

    def dies(self, patience: float) -> bool:
        """Wait up to *patience* seconds for its death; say whether it came."""
        deadline = time.monotonic() + patience
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        while self.exit_code() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poll.poll(min(left, TICK) * 1000)
        return True

    def close(self) -> None:
        """Let go of what watches it; the process is left to `reap`."""
        self.channel.close()
        os.close(self.handle)

    def reap(self) -> bool:
        """Take a dead process out of the process table; False while a thread of it is stuck."""
        return os.waitpid(self.pid, os.WNOHANG)[0] == self.pid


def start_time(pid: int) -> int | None:
    """Return when process *pid* was started, in ticks since boot; None where none such lives."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def is_outside(exit_code: int) -> bool:
    """Say whether *exit_code* is the work of a signal from outside."""
    return -exit_code in _OUTSIDE


def describe(exit_code: int) -> str:
    """Return how a process with *exit_code* ended, in words."""
    if exit_code >= 0:
        return f"ended with code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"


def start(run: Callable[[socket.socket], None], close: Sequence[int]) -> Child:
    """Fork a process that calls *run* with its end of a channel, without what *close* lists."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        its.close()
        return Child(pid, ours)
    code = 1
    try:
        ours.close()
        for handle in close:
            os.close(handle)
        _reset_signals()
        run(its)
        code = 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:
        # The end of this process: nothing that stands above it on the stack may run here.
        logger.exception("the daemon failed")
    finally:
        logging.shutdown()
        os._exit(code)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # Ctrl-C in a terminal reaches the whole group; the supervisor is the one to act on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
