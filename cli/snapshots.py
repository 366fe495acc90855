"""The snapshotter wired: store, layers, images and their session, and the service."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import trio

from chunkstore.blobcache import BlobCache
from fusefs.containers.claims import claimed, control_of
from fusefs.containers.gallery import Gallery
from fusefs.containers.layers import Layers
from fusefs.containers.lazyimages import LazyImage, RegistryImages
from fusefs.containers.pullservice import serve_pulls
from fusefs.containers.snapshotservice import serving
from fusefs.containers.snapshotstore import SnapshotStore
from fusefs.containers.snapshotter import LazyImages, NoImages, Snapshotter
from fusefs.errors import MountFailed

from .clients import client_of
from .gallery import words
from .lazy import RegistrySources
from .pulling import Pulling
from .setup import GalleryRequest, SnapshotterRequest
from .whole import unpack_image

logger = logging.getLogger(__name__)

_LAUNCH = 30.0
"""Seconds for a session to answer."""


async def run(request: SnapshotterRequest) -> None:
    """Serve until SIGTERM or SIGINT; raises Busy where another snapshotter does."""
    with (
        claimed(request.root, request.address),
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
    ):
        layers = Layers(request.root)
        with closing(SnapshotStore(request.root / "metadata.db")) as store:
            needed = sorted({one.image for one in store.all() if one.image})
            async with _images(request, needed) as (images, pulls):
                snapshotter = Snapshotter(store, layers, images)
                await snapshotter.cleanup()
                await pulls(snapshotter)
                async with serving(snapshotter, request.address):
                    logger.info("listening address=%s", request.address)
                    async for number in signals:
                        logger.info("ending signal=%d", number)
                        break


Pulls = Callable[[Snapshotter], Awaitable[None]]
"""Begins to answer ``naiad pull``."""


@asynccontextmanager
async def _images(
    request: SnapshotterRequest, needed: list[str]
) -> AsyncIterator[tuple[LazyImages, Pulls]]:
    """Make what loads images lazily, with those mounted that snapshots need."""
    if request.gallery is None:
        yield NoImages(), _no_pulls
        return
    BlobCache(request.gallery.setup.cache).close()  # else each pull would say that it is unusable
    with client_of(request.gallery.setup) as client:
        launch = _launcher(request, request.gallery)
        unpack = partial(unpack_image, client, request.gallery)
        gallery = Gallery(request.root, request.state, launch, unpack)
        sources = RegistrySources(client, request.gallery.setup, request.gallery.registries)
        try:
            await gallery.start({LazyImage.decode(text).name for text in needed})
            async with trio.open_nursery() as nursery:
                images = RegistryImages(sources, gallery, nursery)
                await images.restore(needed)
                registries = request.gallery.registries
                pulling = Pulling(client, registries, request.containerd, images, nursery)
                nursery.start_soon(gallery.watch)

                async def pulls(snapshotter: Snapshotter) -> None:
                    pull = partial(pulling.pull, let_go=snapshotter.let_go)
                    await nursery.start(serve_pulls, control_of(request.address), pull)

                yield images, pulls
                nursery.cancel_scope.cancel()
        finally:
            # Also where a socket could not be had: nobody would know of the session.
            with trio.CancelScope(shield=True):
                await gallery.close()


async def _no_pulls(snapshotter: Snapshotter) -> None:
    """Answer none: nothing is loaded lazily."""


def _launcher(
    request: SnapshotterRequest, gallery: GalleryRequest
) -> Callable[[Path], Awaitable[None]]:
    async def launch(mountpoint: Path) -> None:
        command = words(mountpoint, gallery, request.state, request.log_level)
        try:
            with trio.fail_after(_LAUNCH):
                done = await trio.run_process(command, capture_stderr=True, check=False)
        except trio.TooSlowError as exc:
            raise MountFailed(f"{mountpoint}: no session in {_LAUNCH:g} s") from exc
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise MountFailed(f"{mountpoint}: no session of images: {said}")

    return launch
