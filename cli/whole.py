"""An image of a registry unpacked to a directory, where it cannot be mounted."""

from __future__ import annotations

import logging
from pathlib import Path

import trio

from chunkstore import Digest
from chunkstore.http import Client
from chunkstore.origins.credentials import Credential
from chunkstore.origins.registryorigin import RegistryOrigin
from fusefs.containers.lazyimages import LazyImage
from rafs.storedreader import StoredReader
from rafs.unpack import unpack

from .oci import Layers, Repository
from .opening import opened_at, reader
from .registries import Proof, registry
from .setup import GalleryRequest

logger = logging.getLogger(__name__)


async def unpack_image(
    client: Client, request: GalleryRequest, image: LazyImage, who: Credential | None, place: Path
) -> None:
    """Write all files of *image* to the new directory *place*; raises ChunkstoreError, OSError."""
    proof = Proof(who, request.registries)
    where = registry(image.reference, client, request.registries, proof)
    lies = Layers(Repository(where), RegistryOrigin(where))
    pin = Digest.parse(image.bootstrap)
    async with opened_at(str(image.reference), lies, request.setup, pin, None) as found:
        stored = StoredReader(reader(found.origin))
        left_out = await trio.to_thread.run_sync(unpack, found.bootstrap, stored, place, _go_on)
    for word in left_out:
        logger.warning("unpacked, but: %s", word)


def _go_on(_: int) -> None:
    trio.from_thread.check_cancelled()
