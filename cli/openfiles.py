"""How many files a daemon may have open: two or three per blob, and its connections."""

from __future__ import annotations

import resource


def allow_many() -> None:
    """Take as many as the system lets this process have; the usual 1,024 are for ``select``."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
