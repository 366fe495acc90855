"""The kernel's pages of files: to be forgotten where their bytes turn out to be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pyfuse3
import trio

_LIMITER = trio.CapacityLimiter(1)
"""The kernel waits for pages that are being read, so this waits for this very daemon."""


async def forget_pages(nodes: Sequence[int]) -> None:
    """Have the kernel drop what it keeps of the files *nodes*, and ask again."""
    for node in nodes:
        await trio.to_thread.run_sync(_forget, node, limiter=_LIMITER)


def _forget(node: int) -> None:
    with suppress(OSError):  # nobody has ever looked it up
        pyfuse3.invalidate_inode(node)
