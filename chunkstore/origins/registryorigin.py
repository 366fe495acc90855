"""RegistryOrigin: blobs of a repository, by range, wherever the registry keeps them.

Big registries answer with a redirect to a signed url of a blob store, good for minutes. It is
remembered, so that a range costs one request and not two, until the store does not honour it any
more; then the registry is asked again.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from chunkstore.digest import Digest
from chunkstore.errors import Malformed, Missing, Unreachable
from chunkstore.http import RangeRead, Request, Response, Url
from chunkstore.http.client import refused
from chunkstore.http.message import ignore
from chunkstore.http.ranges import ranged, receive_range, received_size
from chunkstore.source import Arrived

from .registry import Registry

T = TypeVar("T")
Take = Callable[[Response], Awaitable[T]]

_TARGETS = 1024
"""Redirects remembered; an image has some dozen blobs."""

_REDIRECTING = (301, 302, 303, 307, 308)
_EXPIRED = (400, 401, 403, 404, 410)
"""How blob stores answer a url that was good once (400: a token that ran out, at some of them)."""

_ID = re.compile(r"[0-9a-f]{64}")


class RegistryOrigin:
    """Reads the blobs of a registry's repository."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._targets: OrderedDict[str, Url] = OrderedDict()

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
        target = self._targets.get(blob_id)
        if target is not None:
            self._targets.move_to_end(blob_id)
            try:
                async with self._registry.client.request(replace(request, url=target)) as response:
                    if response.status not in _EXPIRED:
                        return await take(response)
                    await response.drain()
            except Unreachable:
                self._targets.pop(blob_id, None)
                raise
            self._targets.pop(blob_id, None)
        return await self._take_anew(blob_id, request, take)

    async def _take_anew(self, blob_id: str, request: Request, take: Take[T]) -> T:
        async with self._registry.ask(request, redirects=0) as response:
            if response.status not in _REDIRECTING:
                return await take(response)
            try:
                joined = response.url.join(response.headers.get("location", ""))
            except Malformed as exc:
                raise Unreachable(str(exc)) from exc
            await response.drain()
        target = replace(joined, userinfo=None)
        if target.site != request.url.site:
            self._remember(blob_id, target)
        async with self._registry.ask(replace(request, url=target)) as response:
            if response.status in _EXPIRED:
                self._targets.pop(blob_id, None)
                raise await refused(response)
            return await take(response)

    def _remember(self, blob_id: str, target: Url) -> None:
        self._targets[blob_id] = target
        if len(self._targets) > _TARGETS:
            self._targets.popitem(last=False)

    def __repr__(self) -> str:
        return f"RegistryOrigin({self._registry.reference})"
