"""Push: blobs and manifests into a repository."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from chunkstore.digest import Algorithm, Buffer, Digest
from chunkstore.errors import Corrupt, Missing, Refused, Unreachable
from chunkstore.http import Request, Response, Upload, Url
from chunkstore.http.client import refused

from .registry import PUSH, Registry

logger = logging.getLogger(__name__)

WHOLE = 256 << 20
"""Bytes up to which a blob goes in one request; a bigger one goes in pieces of this size, so that
a cut costs a piece and not the blob."""

_PART = 1 << 20
_RETRIES = 3
"""Times that a piece, and a blob, is sent again."""

_Part = Callable[[int, int], Upload | bytes]
"""Gives the part ``[start, stop)`` of what is pushed, as often as it is asked."""

_BINARY = ("Content-Type", "application/octet-stream")


class Push:
    """Writes to the repository of *registry*."""

    def __init__(self, registry: Registry, *, whole: int = WHOLE, pause: float = 0.5) -> None:
        """Send up to *whole* bytes at once; wait *pause* seconds, then twice that, after a cut."""
        self._registry = registry
        self._whole = whole
        self._pause = pause

    async def has(self, digest: Digest) -> bool:
        """Say whether the repository holds the blob already."""
        request = replace(self._registry.blob(digest), method="HEAD")
        async with self._registry.ask(request, PUSH, redirects=0) as response:
            if response.status == 404:
                return False
            if response.status >= 400:
                raise await refused(response)
            return True

    async def blob(self, digest: Digest, path: Path) -> bool:
        """Have the repository hold the file at *path*; False where it did already."""
        size = (await trio.to_thread.run_sync(path.stat)).st_size
        return await self._held(digest, size, partial(_part_of, path))

    async def content(self, digest: Digest, data: bytes) -> bool:
        """Have the repository hold *data*; False where it did already."""
        return await self._held(digest, len(data), lambda start, stop: data[start:stop])

    async def _held(self, digest: Digest, size: int, part: _Part) -> bool:
        if await self.has(digest):
            return False
        for tried in range(_RETRIES + 1):
            try:
                await self._send(digest, size, part)
                break
            except Unreachable as exc:
                await self._wait(exc, tried)
            # What was cut off may have been the answer alone.
            if await self.has(digest):
                break
        logger.info("blob pushed digest=%s bytes=%d", digest, size)
        return True

    async def _send(self, digest: Digest, size: int, part: _Part) -> None:
        place = await self._begin()
        try:
            await self._fill(place, digest, size, part)
        except Missing as exc:
            # A registry that forgets an upload (it was restarted, say) can be sent it anew.
            raise Unreachable(f"the upload was lost: {exc}") from exc

    async def _fill(self, place: Url, digest: Digest, size: int, part: _Part) -> None:
        if size <= self._whole:
            await self._end(place, digest, part(0, size))
            return
        for start in range(0, size, self._whole):
            place = await self._piece(place, part, start, min(start + self._whole, size))
        await self._end(place, digest, b"")

    async def _wait(self, exc: Unreachable, tried: int) -> None:
        """Wait before the next attempt, or raise *exc* where there should be none."""
        if isinstance(exc, Refused) or tried == _RETRIES:
            raise exc
        await trio.sleep(exc.retry_after or self._pause * 2**tried)

    async def manifest(self, data: bytes, media_type: str, name: str | None = None) -> Digest:
        """Put a manifest or index under *name*, a tag or digest, or the reference's own name."""
        digest = Digest.of(data, Algorithm.SHA256)
        url = self._registry.url(f"manifests/{name or self._registry.reference.name}")
        request = Request("PUT", url, (("Content-Type", media_type),), body=data)
        async with self._registry.ask(self._patient(request), PUSH) as response:
            if response.status not in (200, 201, 202):
                raise await refused(response)
            said = response.headers.get("docker-content-digest", str(digest))
            if said != str(digest):
                raise Corrupt(f"{url}: taken as {said}, not as {digest}")
            await response.drain()
        return digest

    async def _begin(self) -> Url:
        request = Request("POST", self._registry.url("blobs/uploads/"))
        async with self._registry.ask(self._patient(request), PUSH) as response:
            if response.status != 202:
                raise await refused(response)
            await response.drain()
            return _next_place(response)

    async def _end(self, place: Url, digest: Digest, body: Upload | bytes) -> None:
        url = place.with_query([("digest", str(digest))])
        request = Request("PUT", url, (_BINARY,), body=body)
        async with self._registry.ask(self._patient(request), PUSH) as response:
            if response.status not in (201, 202, 204):
                raise await refused(response)
            await response.drain()

    async def _piece(self, place: Url, part: _Part, start: int, stop: int) -> Url:
        """Send a piece, and what a cut left of it again; return where the next one goes."""
        for tried in range(_RETRIES + 1):
            try:
                return await self._patch(place, part, start, stop)
            except Unreachable as exc:
                await self._wait(exc, tried)
                place, start = await self._arrived(place, start, stop)
                if start == stop:
                    break
        return place

    async def _patch(self, place: Url, part: _Part, start: int, stop: int) -> Url:
        headers = (_BINARY, ("Content-Range", f"{start}-{stop - 1}"))
        request = Request("PATCH", place, headers, body=part(start, stop))
        async with self._registry.ask(self._patient(request), PUSH) as response:
            if response.status not in (201, 202, 204):
                raise await refused(response)
            await response.drain()
            return _next_place(response)

    async def _arrived(self, place: Url, start: int, stop: int) -> tuple[Url, int]:
        """Ask how far an upload came (distribution-spec, "pushing a blob in chunks")."""
        async with self._registry.ask(self._patient(Request("GET", place)), PUSH) as response:
            if response.status not in (200, 204):
                raise await refused(response)
            await response.drain()
            last = response.headers.get("range", "").rpartition("-")[2]
            # An upload without a byte is shown as 0-0, as docker-registry does it.
            count = int(last) + 1 if last.isdigit() and last != "0" else 0
            if not start <= count <= stop:
                raise Corrupt(f"{place}: holds {count} bytes of an upload that was at {start}")
            return _next_place(response), count

    def _patient(self, request: Request) -> Request:
        return replace(request, patience=self._registry.patience)


def _next_place(response: Response) -> Url:
    location = response.headers.get("location")
    if location is None:
        raise Unreachable(f"{response.url}: does not say where the upload goes")
    try:
        return response.url.join(location)
    except ValueError as exc:
        raise Unreachable(f"{response.url}: the upload leads nowhere") from exc


def _part_of(path: Path, start: int, stop: int) -> Upload:
    return Upload(stop - start, partial(_parts, path, start, stop))


async def _parts(path: Path, start: int, stop: int) -> AsyncGenerator[Buffer, None]:
    async with await trio.open_file(path, "rb") as file:
        await file.seek(start)
        while start < stop:
            part = await file.read(min(_PART, stop - start))
            if not part:
                return
            yield part
            start += len(part)
