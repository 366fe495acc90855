"""Client: requests to any server, over kept connections, through proxies and redirects."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

import trio

from chunkstore.errors import ChunkstoreError, Malformed, Unreachable

from .answers import failure, refusal
from .exchange import Exchange, HungUp, tunnel
from .layered import LayeredTls
from .message import Deadlines, Request, Response
from .pool import Pool
from .proxies import Proxies
from .trust import Trust
from .url import Url
from .wire import Dial, Socket, Wire, dial_tcp

REDIRECTS = 10
"""Redirects that are followed; browsers follow 20, Go's programs 10."""

_REDIRECTING = (301, 302, 303, 307, 308)
_SECRET = frozenset({"authorization", "cookie", "proxy-authorization"})
_AGENT = "naiad"


class Client:
    """An HTTP client for one event loop; close it to hang up what it keeps."""

    def __init__(
        self,
        *,
        proxies: Proxies | None = None,
        trust: Trust | None = None,
        deadlines: Deadlines | None = None,
        connections: int = 16,
        dial: Dial = dial_tcp,
    ) -> None:
        """Take at most *connections* per server; *trust* the system's CAs unless told otherwise."""
        self.deadlines = deadlines or Deadlines()
        self._proxies = proxies or Proxies()
        self._trust = trust or Trust()
        self._dial = dial
        self._pool = Pool(connections)

    @asynccontextmanager
    async def request(
        self, request: Request, *, redirects: int = REDIRECTS
    ) -> AsyncIterator[Response]:
        """Ask, and hold the connection while the answer's body is received.

        The last redirect allowed is the answer itself. A connection is kept for the next request
        when the body was received to its end, and closed otherwise. Raises Unreachable.
        """
        for left in range(redirects, -1, -1):
            async with self._exchange(request) as response:
                following = _redirected(request, response)
                if following is None or not redirects:
                    yield response
                    return
                if not left:
                    raise Unreachable(f"{request.url}: more than {redirects} redirects")
                await response.drain()
            request = following

    async def get(self, url: str | Url, limit: int) -> bytes:
        """Return a document of at most *limit* bytes; raises ChunkstoreError."""
        where = Url.parse(url) if isinstance(url, str) else url
        async with self.request(Request("GET", where)) as response:
            if response.status != 200:
                raise await refused(response)
            return await response.read(limit)

    def close(self) -> None:
        """Hang up the connections that are kept."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def idle(self) -> int:
        """How many connections are kept."""
        return self._pool.idle

    @asynccontextmanager
    async def _exchange(self, request: Request) -> AsyncIterator[Response]:
        async with self._pool.slot(request.url.site):
            wire, response = await self._answered(request)
            try:
                yield response
            finally:
                if response.is_over:
                    self._pool.keep(request.url.site, wire)
                else:
                    wire.close()

    async def _answered(self, request: Request) -> tuple[Wire, Response]:
        # A kept connection may have been closed by the server while the request travelled. Only a
        # request that does no harm twice is risked on one, and is then asked again on a new one.
        kept = self._pool.take(request.url.site) if request.is_repeatable else None
        if kept is not None:
            try:
                return kept, await self._converse(kept, request)
            except HungUp:
                pass
        wire = await self._connect(request)
        return wire, await self._converse(wire, request)

    async def _converse(self, wire: Wire, request: Request) -> Response:
        patience = self.deadlines.progress if request.patience is None else request.patience
        proxy = self._proxies.before(request.url) if request.url.scheme == "http" else None
        target = request.url.absolute if proxy else request.url.target
        try:
            exchange = Exchange(wire, request, patience)
            return await exchange.run(target, _headers(request, proxy))
        except BaseException:
            wire.close()
            raise

    async def _connect(self, request: Request) -> Wire:
        url = request.url
        try:
            with trio.move_on_after(self.deadlines.connect):
                return await self._reach(url, is_meant=not request.is_redirected)
        except OSError as exc:
            raise failure(url, exc) from exc
        raise Unreachable(f"{url}: no connection in {self.deadlines.connect:g} s")

    async def _reach(self, url: Url, *, is_meant: bool) -> Wire:
        proxy = self._proxies.before(url)
        wire = await self._dial(proxy or url)
        try:
            if proxy and proxy.scheme == "https":
                wire = await self._secured_proxy(wire, proxy)
            if url.scheme == "https":
                if proxy:
                    await tunnel(wire, url, basic(proxy.userinfo))
                wire = await self._secured(wire, url, is_meant)
        except BaseException:
            wire.close()
            raise
        return wire

    async def _secured_proxy(self, wire: Wire, proxy: Url) -> Wire:
        try:
            return await self._secured(wire, proxy, is_meant=False)
        except OSError as exc:
            raise failure(proxy, exc) from exc

    async def _secured(self, wire: Wire, url: Url, is_meant: bool) -> Wire:
        context = await self._trust.context(url, is_meant=is_meant)
        if type(wire) is Socket:
            return await wire.secured(context, url.host)
        layered = LayeredTls(wire, context, url.host)
        await layered.shake_hands()
        return layered


async def refused(response: Response) -> ChunkstoreError:
    """Return the error that an unwanted *response* is, with what the server says about it."""
    said = await response.drain()
    return refusal(response.url, response.status, response.headers, said)


def basic(userinfo: str | None) -> str | None:
    """Return the value of ``Authorization`` for ``USER:PASSWORD``."""
    return f"Basic {b64encode(userinfo.encode()).decode('ascii')}" if userinfo else None


def _headers(request: Request, proxy: Url | None) -> list[tuple[str, str]]:
    headers = [
        ("Host", request.url.authority),
        ("Accept-Encoding", "identity"),
        *request.headers,
    ]
    if not any(name.lower() == "user-agent" for name, _ in request.headers):
        headers.append(("User-Agent", _AGENT))
    authorization = request.authorization or basic(request.url.userinfo)
    if authorization:
        headers.append(("Authorization", authorization))
    if proxy and proxy.userinfo:
        headers.append(("Proxy-Authorization", basic(proxy.userinfo) or ""))
    if request.body is not None:
        size = len(request.body) if isinstance(request.body, bytes) else request.body.size
        headers.append(("Content-Length", str(size)))
    elif not request.is_repeatable:
        headers.append(("Content-Length", "0"))
    return headers


def _redirected(request: Request, response: Response) -> Request | None:
    location = response.headers.get("location")
    if response.status not in _REDIRECTING or location is None:
        return None
    try:
        url = request.url.join(location)
    except Malformed as exc:
        raise Unreachable(str(exc)) from exc
    if url.site == request.url.site:
        following = replace(request, url=replace(url, userinfo=request.url.userinfo))
    else:
        # What proves who we are was meant for one server, and is not for where it points.
        secret = _SECRET | request.private
        shown = tuple(pair for pair in request.headers if pair[0].lower() not in secret)
        url = replace(url, userinfo=None)
        following = replace(request, url=url, headers=shown, authorization=None, is_redirected=True)
    is_post = request.method == "POST" and response.status in (301, 302)
    if is_post or (response.status == 303 and request.method != "HEAD"):
        following = replace(following, method="GET", body=None)
    return following
