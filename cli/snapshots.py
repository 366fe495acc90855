"""The snapshotter wired: store, layers, images, and the service."""

from __future__ import annotations

import logging
import signal
from contextlib import closing
from pathlib import Path

import trio

from fusefs.layers import Layers
from fusefs.snapshotservice import serving
from fusefs.snapshotstore import SnapshotStore
from fusefs.snapshotter import NoImages, Snapshotter

logger = logging.getLogger(__name__)


async def run(root: Path, address: Path) -> None:
    """Serve until SIGTERM or SIGINT."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        layers = Layers(root)
        with closing(SnapshotStore(root / "metadata.db")) as store:
            snapshotter = Snapshotter(store, layers, NoImages())
            await snapshotter.start()
            async with serving(snapshotter, address):
                logger.info("listening address=%s", address)
                async for number in signals:
                    logger.info("ending signal=%d", number)
                    break
