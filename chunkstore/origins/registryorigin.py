"""RegistryOrigin: blobs of a repository, by range, wherever the registry keeps them."""

from __future__ import annotations

import re
from functools import partial
from typing import TypeVar

from chunkstore.digest import Digest
from chunkstore.errors import Missing
from chunkstore.http import RangeRead
from chunkstore.http.message import ignore
from chunkstore.http.ranges import ranged, receive_range, received_size
from chunkstore.source import Arrived

from .registry import Registry
from .signed import SignedUrls, Take

T = TypeVar("T")

_ID = re.compile(r"[0-9a-f]{64}")


class RegistryOrigin:
    """Reads the blobs of a registry's repository."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._urls = SignedUrls(registry)

    async def proof(self) -> str | None:
        """Return what the registry was shown last for reading; None where it asked for nothing."""
        return await self._registry.proof()

    async def read(self, blob_id: str, start: int, into: memoryview, arrived: Arrived) -> None:
        """Fill *into* with the stored bytes from *start* on, calling *arrived* as they come."""
        if into:
            wanted = RangeRead(start, into, arrived)
            await self._take(blob_id, wanted, partial(receive_range, wanted=wanted))

    async def size(self, blob_id: str) -> int:
        """Return the bytes of the whole stored file."""
        first = RangeRead(0, memoryview(bytearray(1)), ignore)
        return await self._take(blob_id, first, received_size)

    async def _take(self, blob_id: str, wanted: RangeRead, take: Take[T]) -> T:
        if not _ID.fullmatch(blob_id):
            raise Missing(f"{self._registry.reference}: holds no blob {blob_id[:100]!r}")
        request = ranged(self._registry.blob(Digest.parse(f"sha256:{blob_id}")), wanted)
        return await self._urls.take(blob_id, request, take)

    def __repr__(self) -> str:
        return f"RegistryOrigin({self._registry.reference})"
