"""How a command ends before its work is done: by Ctrl-C or SIGTERM, which leave nothing behind."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click
import trio

from .groups import ungrouped

T = TypeVar("T")


def run_to_end(work: Callable[[], Awaitable[T]]) -> T:
    """Run *work* and return what it does; raises click.Abort after Ctrl-C or SIGTERM.

    These cancel it; a thread of it asks ``trio.from_thread.check_cancelled`` now and then.
    """
    done: list[T] = []

    async def watched() -> None:
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                nursery.start_soon(_cancel, signals, nursery.cancel_scope)
                done.append(await work())
            nursery.cancel_scope.cancel()

    with ungrouped():
        trio.run(watched)
    if not done:
        raise click.Abort
    return done[0]


async def _cancel(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


@contextmanager
def terminable() -> Iterator[None]:
    """Have SIGTERM end what runs as Ctrl-C does; for work without an event loop."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
