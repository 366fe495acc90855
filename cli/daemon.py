"""The daemon of a mount: what it serves, wired. Loaded by name in the daemon's own process."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial

from fusefs.daemon import Wired, run_daemon
from fusefs.supervisor import Handoff

from .setup import MountRequest
from .stack import wired


def run(handoff: Handoff, request: MountRequest) -> None:
    """Serve *request*'s image until it is unmounted."""
    wire: partial[AbstractAsyncContextManager[Wired]] = partial(wired, request)
    run_daemon(handoff, wire)
