"""How services run: in the foreground, until they are told to end."""

from __future__ import annotations

import logging
import signal
from collections.abc import Awaitable, Callable

import trio

from .groups import ungrouped

logger = logging.getLogger(__name__)


def run_service(work: Callable[[], Awaitable[None]]) -> None:
    """Run *work* until it ends, or SIGTERM or SIGINT comes; raises one plain error."""
    with ungrouped():
        trio.run(_until_told, work)


async def _until_told(work: Callable[[], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_listen, nursery.cancel_scope)
        await work()
        nursery.cancel_scope.cancel()


async def _listen(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            logger.info("ending signal=%s", signal.Signals(number).name)
            scope.cancel()
