"""Early: a mount's first daemon, forked before it is known what it is to serve.

To load what a daemon needs takes most of the time in which a mount comes up. So this one loads it
while the process that is to be its supervisor still reads the command line, and is then handed what
`start` would have it inherit. Later daemons are forked as ever.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from .child import Child, start
from .vitals import Vitals

READY = b"ready"
"""What a supervisor says to the command when the mount answers; else why it does not."""

_MESSAGE = 1 << 16
"""Bytes of what is handed over; where that is not enough, the daemon is forked as ever."""

_HANDLES = 16
"""That come with it, at most."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the daemon was handed."""

    channel: socket.socket
    """To the supervisor."""
    handles: Sequence[int]
    driver: str
    log: str
    """Path of the log file, whose handle stands for stdout and stderr by now."""
    work: str
    """What is to be served, as the command said it."""


class Early:
    """The supervisor's side of it."""

    def __init__(self, child: Child, vitals: Vitals, told: int) -> None:
        """Have *child*, which was forked by `forked`."""
        self._child: Child | None = child
        self._vitals = vitals
        self.told = told
        """A pipe to the command, which waits."""
        self.work = ""
        """What is to be served."""
        self.log = ""
        self.more: Sequence[int] = ()
        """Handles of the command's own that go with it."""

    @classmethod
    def forked(cls, serve: Callable[[Vitals, socket.socket], None], told: int) -> Early:
        """Fork a process that calls *serve*, without *told*, which is a pipe to the command."""
        vitals = Vitals()
        return cls(start(partial(serve, vitals), [told]), vitals, told)

    @property
    def vitals(self) -> Vitals | None:
        """What the daemon lives by; None where it has been handed over, or is dead."""
        return self._vitals if self._child is not None else None

    def hand(self, handles: Sequence[int], driver: str) -> Child | None:
        """Have the daemon serve *handles*; None where it is not there to do so."""
        child, self._child = self._child, None
        if child is None:
            return None
        told = json.dumps({"driver": driver, "log": self.log, "work": self.work})
        try:
            if len(told) < _MESSAGE:
                handles = [0, 1, *handles, *self.more]
                socket.send_fds(child.channel, [told.encode()], handles)
                return child
        except OSError:
            pass  # it has died
        finally:
            for handle in self.more:
                os.close(handle)
            self.more = ()
        _end(child)
        return None

    def discard(self) -> None:
        """End the daemon, if it has not been handed over."""
        if self._child is not None:
            _end(self._child)
        self._child = None


def _end(child: Child) -> None:
    child.kill()
    os.waitpid(child.pid, 0)
    child.close()


def given(channel: socket.socket) -> Given | None:
    """Wait in the daemon for what it is handed; None where it is not wanted.

    It leaves the terminal then, as the supervisor has done: stdin and stdout of that one are its
    own from now on.
    """
    told, handles, _, _ = socket.recv_fds(channel, _MESSAGE, _HANDLES)
    if not told:
        return None
    os.setsid()
    os.chdir("/")
    null, log, *rest = handles
    for source, place in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, place)
    os.close(null)
    os.close(log)
    facts = json.loads(told)
    return Given(channel, rest, facts["driver"], facts["log"], facts["work"])
