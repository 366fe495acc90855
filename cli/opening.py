"""Images that are open: from what was typed to a bootstrap and the origin of its chunks.

IMAGE text → place → bootstrap, checked and kept → origin.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from chunkstore import Buffer, Digest, Origin
from chunkstore.http import Client
from chunkstore.origins.hubname import PREFIX
from chunkstore.origins.registryorigin import RegistryOrigin
from chunkstore.retrying import Retrying
from rafs import Bootstrap, ci
from rafs.separate import separate

from .bootstraps import Bootstraps
from .clients import client_of
from .hub import HubPlace, hub_of
from .image import find
from .models import Files, Unhashed, without_digests
from .obtaining import bootstrap_at, kept_in
from .oci import Layers
from .places import Place, ignore
from .setup import Setup


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is open."""

    name: str
    bootstrap: Bootstrap
    digest: Digest
    """SHA-256 of its bootstrap."""
    origin: Origin
    """Asked again until nothing has come for as long as the setup says."""
    kept: Bootstraps
    """Where the bootstrap lies."""
    files: Files | None = None
    """Of an image made of a hub's listing: what its chunks are checked by."""
    registry: RegistryOrigin | None = None
    """Where its blobs lie, if that is a registry."""

    async def proof(self) -> str | None:
        """Return what its registry was shown, for seeds that ask who may have it."""
        return await self.registry.proof() if self.registry else None


@asynccontextmanager
async def opened(
    name: str,
    setup: Setup,
    pin: Digest | None = None,
    again: Digest | None = None,
    *,
    unhashed: Unhashed = Unhashed.REFUSED,
) -> AsyncIterator[Image]:
    """Open the image that *name* names; its bootstrap must hash to *pin*.

    *again* is the bootstrap that a daemon before this one served: that one and no newer is opened,
    without asking the origin where it is kept. *unhashed* says what of an image whose chunks have
    no digests. Raises ChunkstoreError or RafsError.
    """
    with client_of(setup) as client:
        place = _place(name, client, setup)
        async with opened_at(name, place, setup, pin, again, unhashed=unhashed) as image:
            yield image


@asynccontextmanager
async def opened_at(
    name: str,
    place: Place,
    setup: Setup,
    pin: Digest | None,
    again: Digest | None,
    *,
    unhashed: Unhashed = Unhashed.REFUSED,
) -> AsyncIterator[Image]:
    """Open the image that lies at *place*; as `opened`."""
    kept = kept_in(setup)
    try:
        bootstrap, digest = await bootstrap_at(place, kept, pin, again)
        try:
            if _is_unhashed(place, unhashed):
                bootstrap = separate(bootstrap)
            files = _files(name, place, bootstrap, unhashed)
            source = files.origin if files else place.origin
            origin = Retrying(source, deadline=setup.patience)
            registry = source if isinstance(source, RegistryOrigin) else None
            image = Image(name, bootstrap, digest, origin, kept, files, registry)
            await attach_lists(image)
            yield image
        finally:
            bootstrap.close()
    finally:
        kept.close()


def reader(
    origin: Origin, token: trio.lowlevel.TrioToken | None = None
) -> Callable[[str, int, int], Buffer]:
    """Return what reads *origin* from one of trio's threads, and is cancelled with who waits there.

    With the *token* of a running event loop it reads from any thread, and is not cancelled.
    """

    def read(blob_id: str, start: int, stop: int) -> Buffer:
        into = bytearray(stop - start)
        trio.from_thread.run(
            origin.read, blob_id, start, memoryview(into), ignore, trio_token=token
        )
        return into

    return read


def open_all(names: Sequence[str], setup: Setup) -> list[Bootstrap]:
    """Open the bootstraps of *names*, for a caller without an event loop; theirs to close."""
    return [trio.run(_alone, name, setup) for name in names]


async def _alone(name: str, setup: Setup) -> Bootstrap:
    with client_of(setup) as client:
        place = _place(name, client, setup)
        bootstrap, _ = await bootstrap_at(place, kept_in(setup), None)
        _files(name, place, bootstrap, Unhashed.REFUSED)
        return bootstrap


def _is_unhashed(place: Place, unhashed: Unhashed) -> bool:
    """Say whether the image at *place* is one whose chunks have no digests."""
    if not isinstance(place, HubPlace | Layers):
        return False
    return place.is_unhashed or unhashed is Unhashed.KNOWN


def _files(name: str, place: Place, bootstrap: Bootstrap, unhashed: Unhashed) -> Files | None:
    """Return what an image is read from whose chunks have no digests; None for any other."""
    if not isinstance(place, HubPlace | Layers) or not _is_unhashed(place, unhashed):
        return None
    if unhashed is Unhashed.REFUSED:
        raise without_digests(name)
    return place.files(bootstrap)


def _place(name: str, client: Client, setup: Setup) -> Place:
    if name.startswith(PREFIX):
        return HubPlace(hub_of(name, client), setup)
    return find(name, client, plain_http=setup.plain_http)


async def attach_lists(image: Image) -> None:
    """Attach the chunk lists of those blobs that only their own lists can tell the places of.

    They are kept, so that a later daemon needs no origin for them.
    """
    for needed in ci.ranges_needed(image.bootstrap):
        blob_id, start, size = needed.entry.blob.id, needed.start, needed.stop - needed.start
        data: Buffer | None = image.kept.kept_list(blob_id, start, size)
        found = data is not None
        if data is None:
            data = bytearray(size)
            await image.origin.read(blob_id, start, memoryview(data), ignore)
        image.bootstrap.attach(needed.blob_index, ci.decode(needed.entry, data))
        if not found:
            image.kept.keep_list(blob_id, start, data)
