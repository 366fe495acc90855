"""``naiad``, as it is installed: Ctrl-C ends it quietly from its first import on."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Load the command line and run it."""
    try:
        if sys.argv[1:2] == ["pull"]:
            from .quick import pulled

            if pulled(sys.argv[1:], os.environ):
                return
        from .main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run(prog_name="naiad")
