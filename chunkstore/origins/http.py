"""HttpOrigin: a folder of blobs under a url, on any server that sends ranges."""

from __future__ import annotations

import logging
from typing import BinaryIO

from chunkstore.errors import Corrupt
from chunkstore.http import Client, RangeRead, Request, Url, download, file_size, read_range
from chunkstore.source import Arrived

logger = logging.getLogger(__name__)

_CHANGES = 2
"""Replacements of one blob after which its tag is no longer believed: servers behind a balancer
that each make up their own would otherwise never agree. Chunks are verified anyway."""


class HttpOrigin:
    """Reads ``blobs/ID`` and small documents under *base*."""

    def __init__(
        self,
        base: str | Url,
        client: Client,
        *,
        folder: str = "blobs",
        patience: float | None = None,
    ) -> None:
        """Allow *patience* seconds without progress, or as many as the client does."""
        self._base = Url.parse(base) if isinstance(base, str) else base
        self._client = client
        self._folder = folder
        self._patience = patience
        self._requests: dict[str, Request] = {}
        self._tags: dict[str, str] = {}
        self._changes: dict[str, int] = {}

    async def read(self, blob_id: str, start: int, into: memoryview, arrived: Arrived) -> None:
        """Fill *into* with the stored bytes from *start* on, calling *arrived* as they come.

        A blob that was replaced since it was first read is Corrupt once; the next read takes it as
        it is now.
        """
        wanted = RangeRead(start, into, arrived, self._tags.get(blob_id))
        try:
            tag = await read_range(self._client, self._request(blob_id), wanted)
        except Corrupt as exc:
            self._doubt(blob_id, exc)
            raise
        if tag is not None and self._changes.get(blob_id, 0) < _CHANGES:
            self._tags[blob_id] = tag

    def _doubt(self, blob_id: str, exc: Corrupt) -> None:
        if self._tags.pop(blob_id, None) is not None:
            self._changes[blob_id] = self._changes.get(blob_id, 0) + 1
            logger.warning("blob differs from before blob=%s reason=%s", blob_id, exc)

    async def size(self, blob_id: str) -> int:
        """Return the bytes of the whole stored file."""
        return await file_size(self._client, self._request(blob_id))

    async def document(self, name: str, limit: int) -> bytes:
        """Return the small file *name* beside the blobs' folder, of at most *limit* bytes."""
        return await self._client.get(self._base.child(name), limit)

    async def download(self, name: str, out: BinaryIO, limit: int) -> int:
        """Write the file *name* beside the blobs' folder to *out*; return its bytes."""
        return await download(self._client, self._of(name), out, limit)

    def _request(self, blob_id: str) -> Request:
        request = self._requests.get(blob_id)
        if request is None:
            request = self._requests[blob_id] = self._of(f"{self._folder}/{blob_id}")
        return request

    def _of(self, name: str) -> Request:
        return Request("GET", self._base.child(name), patience=self._patience)

    def __repr__(self) -> str:
        return f"HttpOrigin({self._base})"
