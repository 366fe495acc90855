"""``naiad``, as it is installed: Ctrl-C ends it quietly from its first import on."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as typing has it, whose import Ctrl-C would break off

if TYPE_CHECKING:
    from fusefs.mounting.early import Early


def main() -> None:
    """Load the command line and run it."""
    try:
        early = _early()
        if sys.argv[1:2] == ["pull"]:
            from .quick import pulled

            if pulled(sys.argv[1:], os.environ):
                return
        from .main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    try:
        run(prog_name="naiad", obj=early)
    finally:
        if early is not None:
            early.discard()


def _early() -> Early | None:
    """Return the daemon that a mount has begun with."""
    if sys.argv[1:2] != ["mount"]:
        return None
    from .early import begin, is_early

    return begin() if is_early(sys.argv[1:], os.environ) else None
