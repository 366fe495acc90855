"""The daemon of a mount: what it serves, wired. Loaded by name in the daemon's own process."""

from __future__ import annotations

from fusefs.daemon import run_daemon
from fusefs.supervisor import Handoff
from p2p.errors import P2pError

from .openfiles import allow_many
from .precheck import Precheck
from .setup import MountRequest
from .stack import wired


def run(handoff: Handoff, request: MountRequest, precheck: Precheck | None) -> None:
    """Serve *request*'s image until it is unmounted; *precheck* may be checking it already."""
    allow_many()
    run_daemon(handoff, lambda: wired(request, handoff, precheck), P2pError)
