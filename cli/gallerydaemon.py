"""The daemon of a session of many images, wired. Loaded by name in the daemon's own process."""

from __future__ import annotations

from fusefs.daemon import run_daemon
from fusefs.mounting.supervisor import Handoff
from p2p.errors import P2pError

from .hosting import hosted
from .openfiles import allow_many
from .setup import GalleryRequest


def run(handoff: Handoff, request: GalleryRequest) -> None:
    """Serve the images that the snapshotter names until the session is unmounted."""
    allow_many()
    run_daemon(handoff, lambda: hosted(request, handoff), P2pError)
