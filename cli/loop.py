"""An event loop in a thread of its own, for commands whose work is not asynchronous."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import trio

_Started = tuple[trio.lowlevel.TrioToken, trio.Event]


@contextmanager
def background_loop() -> Iterator[trio.lowlevel.TrioToken]:
    """Run an event loop and yield its token, for ``trio.from_thread.run``."""
    started: queue.SimpleQueue[_Started] = queue.SimpleQueue()
    thread = threading.Thread(target=trio.run, args=(_idle, started), daemon=True)
    thread.start()
    token, over = started.get()
    try:
        yield token
    finally:
        token.run_sync_soon(over.set)
        thread.join()


async def _idle(started: queue.SimpleQueue[_Started]) -> None:
    over = trio.Event()
    started.put((trio.lowlevel.current_trio_token(), over))
    await over.wait()
