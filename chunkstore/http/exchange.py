"""One exchange on a wire: the head of a request out, the head of its answer in."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing

import h11
import trio

from chunkstore.errors import Malformed, Refused, Unreachable

from .answers import failure, wants_another
from .body import Body, Chunked, FramingError, Sized, UntilClosed
from .message import Pace, Request, Response, Upload, stalled
from .url import Url
from .wire import Wire

_HEAD = 64 << 10
"""Bytes of an answer's head: signed redirects of object stores have lines of 4 KiB and more."""

_RECEIVE = 8 << 10
"""Bytes received while the head is not complete; what is body among them is copied once more."""

_BODILESS = (204, 304)

Headers = Iterable[tuple[str, str]]


class HungUp(Unreachable):
    """The server closed the connection before it said anything."""


class Exchange:
    """One request on one wire."""

    def __init__(self, wire: Wire, request: Request, patience: float) -> None:
        self._wire = wire
        self._request = request
        self._pace = Pace(patience)
        self._talk = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD)
        self._heard = False

    async def run(self, target: str, headers: Headers) -> Response:
        """Send the request for *target*, and return the answer once its head is there.

        Raises HungUp when the connection ended before a byte of an answer, else Unreachable.
        """
        try:
            with self._pace.wait() as scope:
                unsent = await self._send(target, headers, scope)
                self._pace.restart()
                scope.deadline = trio.current_time() + self._pace.patience
                head = await self._head(unsent)
            if scope.cancelled_caught:
                raise stalled(self._request.url, self._pace)
            self._pace.restart()
        except h11.LocalProtocolError as exc:
            raise Malformed(f"{self._request.url}: no such request: {exc}") from exc
        except (OSError, FramingError, h11.RemoteProtocolError) as exc:
            unwelcome = wants_another(exc)
            if self._heard or unwelcome or isinstance(exc, h11.RemoteProtocolError):
                raise failure(self._request.url, exc) from exc
            raise HungUp(f"{self._request.url}: {exc}") from exc
        return self._response(head)

    async def _send(self, target: str, headers: Headers, scope: trio.CancelScope) -> bool:
        """Send everything; True when the server stopped listening, which its answer explains."""
        body = self._request.body
        head = self._talk.send(
            h11.Request(method=self._request.method, target=target, headers=list(headers))
        )
        end = self._talk.send(h11.EndOfMessage()) if body is None else None
        assert head is not None
        try:
            await self._wire.send(head + body if isinstance(body, bytes) else head)
        except OSError:
            return True
        if not isinstance(body, Upload) or end is not None:
            return False
        return await self._upload(body, scope)

    async def _upload(self, body: Upload, scope: trio.CancelScope) -> bool:
        left = body.size
        async with aclosing(body.parts()) as parts:
            async for part in parts:
                left -= len(part)
                if left < 0:
                    break
                try:
                    await self._wire.send(part)
                except OSError:
                    return True
                self._pace.moved(len(part), scope)
        if left:
            raise Malformed(f"{self._request.url}: a body of {body.size} bytes was not that long")
        return False

    async def _head(self, unsent: bool) -> h11.Response:
        scratch = memoryview(bytearray(_RECEIVE))
        while True:
            event = self._talk.next_event()
            if isinstance(event, h11.Response):
                return event
            if event is h11.NEED_DATA:
                await self._hear(scratch, unsent)
            elif not isinstance(event, h11.InformationalResponse):
                raise FramingError("no answer")

    async def _hear(self, scratch: memoryview, unsent: bool) -> None:
        count = await self._wire.receive_into(scratch)
        if not count and not self._heard:
            raise FramingError("hung up" + " while it was sent to" * unsent)
        self._heard = True
        self._talk.receive_data(bytes(scratch[:count]))

    def _response(self, head: h11.Response) -> Response:
        headers = _joined(head)
        return Response(
            self._request.url, head.status_code, headers, self._body(head, headers), self._pace
        )

    def _body(self, head: h11.Response, headers: dict[str, str]) -> Body:
        is_kept = head.http_version >= b"1.1" and not _says_close(headers)
        early = self._talk.trailing_data[0]
        if self._request.method == "HEAD" or head.status_code in _BODILESS:
            return Sized(self._wire, early, 0, is_kept=is_kept)
        if "transfer-encoding" in headers:
            return Chunked(self._wire, self._talk, is_kept=is_kept)
        if "content-length" in headers:
            length = int(headers["content-length"])
            return Sized(self._wire, early, length, is_kept=is_kept)
        return UntilClosed(self._wire, early)


def _joined(head: h11.Response) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw, value in head.headers:
        name, text = raw.decode("ascii"), value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


def _says_close(headers: dict[str, str]) -> bool:
    return "close" in headers.get("connection", "").lower()


async def tunnel(wire: Wire, url: Url, authorization: str | None) -> None:
    """Have the proxy on *wire* connect it to *url*'s host; raises OSError, Refused, Unreachable."""
    site = f"[{url.host}]:{url.port}" if ":" in url.host else f"{url.host}:{url.port}"
    talk = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD)
    headers = [("Host", site)]
    if authorization:
        headers.append(("Proxy-Authorization", authorization))
    head = talk.send(h11.Request(method="CONNECT", target=site, headers=headers))
    await wire.send(head or b"")
    await wire.send(talk.send(h11.EndOfMessage()) or b"")
    status = await _tunnel_status(wire, talk)
    if status in (403, 407):
        raise Refused(f"{url}: the proxy answered {status}")
    if not 200 <= status < 300:
        raise Unreachable(f"{url}: the proxy answered {status}")


async def _tunnel_status(wire: Wire, talk: h11.Connection) -> int:
    scratch = memoryview(bytearray(_RECEIVE))
    try:
        while True:
            event = talk.next_event()
            if isinstance(event, h11.Response):
                return event.status_code
            if event is h11.NEED_DATA:
                # One byte at a time would be safest before TLS begins, but a client speaks first
                # there, so that nothing of the server's can be behind the proxy's answer.
                count = await wire.receive_into(scratch)
                talk.receive_data(bytes(scratch[:count]))
    except h11.RemoteProtocolError as exc:
        raise OSError(f"the proxy does not speak HTTP: {exc}") from exc
