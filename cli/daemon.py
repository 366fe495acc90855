"""The daemon of a mount: what it serves, wired. Loaded by name in the daemon's own process."""

from __future__ import annotations

import socket
from pathlib import Path

from fusefs.daemon import run_daemon
from fusefs.mounting.early import Given
from fusefs.mounting.supervisor import Handoff
from fusefs.mounting.vitals import Vitals
from p2p.errors import P2pError

from .logs import to_file
from .openfiles import allow_many
from .precheck import Precheck
from .setup import DaemonRequest, MountRequest, decoded
from .stack import wired


def run(handoff: Handoff, request: MountRequest, precheck: Precheck | None) -> None:
    """Serve *request*'s image until it is unmounted; *precheck* may be checking it already."""
    allow_many()
    run_daemon(handoff, lambda: wired(request, handoff, precheck), P2pError)


def run_early(given: Given, vitals: Vitals) -> None:
    """Serve what a daemon was given that was forked before anything was known."""
    request = decoded(given.work, DaemonRequest)
    to_file(Path(given.log), request.log_level)
    device, init, control, *checking = given.handles
    precheck = Precheck(None, checking[0]) if checking else None
    listening = socket.socket(fileno=control)
    handoff = Handoff(device, init, listening, given.channel, vitals, 0, "", given.driver)
    run(handoff, request.mount, precheck)
