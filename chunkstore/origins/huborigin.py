"""HubOrigin: the files of one commit of a hub's repository, by range; a blob's id is its path."""

from __future__ import annotations

from functools import partial

from chunkstore.http import RangeRead
from chunkstore.http.message import ignore
from chunkstore.http.ranges import ranged, receive_range, received_size
from chunkstore.source import Arrived

from .hub import Hub
from .signed import SignedUrls


class HubOrigin:
    """Reads the files of *commit*, wherever the hub keeps them."""

    def __init__(self, hub: Hub, commit: str) -> None:
        self._hub = hub
        self._commit = commit
        self._urls = SignedUrls(hub)

    async def read(self, blob_id: str, start: int, into: memoryview, arrived: Arrived) -> None:
        """Fill *into* with the file's bytes from *start* on, calling *arrived* as they come."""
        if into:
            wanted = RangeRead(start, into, arrived)
            request = ranged(self._hub.file(self._commit, blob_id), wanted)
            await self._urls.take(blob_id, request, partial(receive_range, wanted=wanted))

    async def size(self, blob_id: str) -> int:
        """Return the bytes of the whole file."""
        first = RangeRead(0, memoryview(bytearray(1)), ignore)
        request = ranged(self._hub.file(self._commit, blob_id), first)
        return await self._urls.take(blob_id, request, received_size)

    def __repr__(self) -> str:
        return f"HubOrigin({self._hub.name}, {self._commit[:12]})"
