"""A session of many images, started as a process of its own by the snapshotter.

``python -m cli.gallery MOUNTPOINT REQUEST``: like ``naiad mount`` this process forks the
supervisor, and that one the daemon, so it imports no trio, pyfuse3 or HTTP client. It returns when
the session answers.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from fusefs.errors import FusefsError
from fusefs.mounting.keeper import MountSpec
from fusefs.mounting.mount import run_mount
from fusefs.mounting.mountinfo import resolved
from fusefs.mounting.state import StateRoot
from fusefs.mounting.supervisor import Handoff

from .logs import to_file
from .setup import GalleryRequest, decoded, encoded

NAME = "images of the snapshotter"


def words(mountpoint: Path, request: GalleryRequest, state: Path | None, level: str) -> list[str]:
    """Return the command that starts a session."""
    text = encoded(request)
    return [sys.executable, "-m", __name__, str(mountpoint), text, str(state or ""), level]


def main(arguments: list[str]) -> int:
    """Start a session; what goes wrong is a line on stderr."""
    place, text, state, level = arguments
    mountpoint, root = resolved(Path(place)), Path(state) if state else None
    request = replace(decoded(text, GalleryRequest), folder=StateRoot(root).folder(mountpoint).path)
    spec = MountSpec(
        image=NAME,
        mountpoint=mountpoint,
        options=("suid", "dev"),
        driver="fuse",
        driver_reason="images are shown by EROFS over it, where that can be had",
        set_up_log=partial(to_file, level=level),
        state=root,
    )
    try:
        run_mount(spec, partial(_daemon, request))
    except (FusefsError, OSError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


def _daemon(request: GalleryRequest, handoff: Handoff) -> None:
    importlib.import_module("cli.gallerydaemon").run(handoff, request)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
