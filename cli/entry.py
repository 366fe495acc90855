"""``naiad``, as it is installed: Ctrl-C ends it quietly from its first import on."""

from __future__ import annotations

import sys


def main() -> None:
    """Load the command line and run it."""
    try:
        from .main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run(prog_name="naiad")
