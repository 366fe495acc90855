"""``naiad mount`` in processes that are forked before it is known what is to be mounted.

::

    command ── fork ── supervisor ── fork ── daemon

The command only waits for what the supervisor says; that one reads the command line, and mounts,
while the daemon loads what it needs. So two processors are busy in the half second that a mount
takes. Where the mount is to stay in the foreground, there is but the command, as
`fusefs.mounting.keeper` has it.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from fusefs.mounting.early import READY, Early, given
from fusefs.mounting.vitals import Vitals

_STAYING = frozenset({"--foreground", "--help", "-h"})


def is_early(words: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Say whether *words*, behind ``naiad``, ask for a mount in the background."""
    asks = words[:1] == ["mount"] and not _STAYING.intersection(words)
    return asks and not environment.get("_NAIAD_COMPLETE")


def begin() -> Early:
    """Become the supervisor, and return its daemon.

    The command's own process ends here, when it has heard that.
    """
    heard, told = os.pipe()
    # Between the fork and its end Python swallows a KeyboardInterrupt.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    supervisor = os.fork()
    if supervisor:
        os.close(told)
        _wait(supervisor, heard)
    os.close(heard)
    # The command acts on Ctrl-C; what is mounted by then would stay otherwise.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return Early.forked(_serve, told)


def _wait(supervisor: int, heard: int) -> NoReturn:
    """Wait for what *supervisor* says through *heard*, and end as it would."""
    said = b""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while more := os.read(heard, 1 << 16):
            said += more
            if said == READY:
                os._exit(0)
        status = os.waitpid(supervisor, 0)[1]
    except KeyboardInterrupt:
        os.kill(supervisor, signal.SIGTERM)
        sys.stderr.write("\nAborted!\n")  # as click does
        os._exit(1)
    code = os.waitstatus_to_exitcode(status)
    if said or code <= 0:
        errors = importlib.import_module("cli.errors")
        died = "its supervisor died" if code else "it was ended before it answered"
        why = said.decode(errors="replace") or died
        sys.stderr.write(f"naiad: {errors.sentence(errors.MountFailed(why))}\n")
    os._exit(code if code > 0 else 1)


def _serve(vitals: Vitals, channel: socket.socket) -> None:
    """Be the daemon."""
    daemon = importlib.import_module("cli.daemon")
    told = given(channel)
    if told is not None:
        daemon.run_early(told, vitals)
