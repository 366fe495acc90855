"""Signed urls: what a server sends on to a store of its own, asked there directly.

Registries and hubs answer with a redirect to a signed url of a blob store, good for minutes. It is
remembered, so that a range costs one request and not two, until the store does not honour it any
more; then the server is asked again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Protocol, TypeVar

from chunkstore.errors import ChunkstoreError, Malformed, Unreachable
from chunkstore.http import Client, Request, Response, Url

T = TypeVar("T")
Take = Callable[[Response], Awaitable[T]]

_TARGETS = 1024
"""Redirects remembered; an image has some dozen blobs."""

_REDIRECTING = (301, 302, 303, 307, 308)
_EXPIRED = (400, 401, 403, 404, 410)
"""How blob stores answer a url that was good once (400: a token that ran out, at some of them)."""


class Server(Protocol):
    """What knows how to prove who asks, to its own host and to no other."""

    client: Client

    def ask(
        self, request: Request, *, redirects: int = ...
    ) -> AbstractAsyncContextManager[Response]:
        """Ask, with proof where it is due."""
        ...

    async def refusal(self, response: Response) -> ChunkstoreError:
        """Return the error that an unwanted answer is."""
        ...


class SignedUrls:
    """The redirects of one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._targets: OrderedDict[str, Url] = OrderedDict()

    async def take(self, key: str, request: Request, take: Take[T]) -> T:
        """Ask for what is known as *key*, wherever it is, and return what *take* makes of it."""
        target = self._targets.get(key)
        if target is not None:
            self._targets.move_to_end(key)
            try:
                async with self._server.client.request(replace(request, url=target)) as response:
                    if response.status not in _EXPIRED:
                        return await take(response)
                    await response.drain()
            except Unreachable:
                self._targets.pop(key, None)
                raise
            self._targets.pop(key, None)
        return await self._take_anew(key, request, take)

    async def _take_anew(self, key: str, request: Request, take: Take[T]) -> T:
        async with self._server.ask(request, redirects=0) as response:
            if response.status not in _REDIRECTING:
                return await self._taken(response, take)
            try:
                joined = response.url.join(response.headers.get("location", ""))
            except Malformed as exc:
                raise Unreachable(str(exc)) from exc
            await response.drain()
        target = replace(joined, userinfo=None)
        if target.site != request.url.site:
            self._remember(key, target)
        async with self._server.ask(replace(request, url=target)) as response:
            if response.status in _EXPIRED:
                self._targets.pop(key, None)
            return await self._taken(response, take)

    async def _taken(self, response: Response, take: Take[T]) -> T:
        if response.status in _EXPIRED:
            raise await self._server.refusal(response)
        return await take(response)

    def _remember(self, key: str, target: Url) -> None:
        self._targets[key] = target
        if len(self._targets) > _TARGETS:
            self._targets.popitem(last=False)
