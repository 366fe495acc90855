"""Download: a whole blob from a registry, as a stream that is verified and goes on after a cut."""

from __future__ import annotations

import hashlib
import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import BinaryIO, Self

import trio

from chunkstore.digest import Digest
from chunkstore.errors import Corrupt, Refused, Unreachable
from chunkstore.http import Response
from chunkstore.http.answers import content_range
from chunkstore.http.client import refused
from chunkstore.http.message import ignore

from .registry import Registry

logger = logging.getLogger(__name__)

_RETRIES = 5
"""Attempts without a byte of progress before the stream gives up."""

_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the first retry, doubled with each, up to the longest."""

_PART = 1 << 20
_THREADED = 256 << 10
"""Bytes from which on hashing leaves the event loop: 0.2 ms of SHA-256."""


class Download:
    """One blob from its first byte to its last; an async context manager."""

    def __init__(self, registry: Registry, digest: Digest, size: int) -> None:
        """Expect *size* bytes that hash to *digest*, a SHA-256."""
        self._registry = registry
        self._digest = digest
        self._size = size
        self._url = registry.blob(digest).url
        self._hash = hashlib.sha256()
        self._at = 0
        self._response: Response | None = None
        self._open = AsyncExitStack()

    async def receive_into(self, into: memoryview) -> int:
        """Receive at least one byte; return how many, 0 at the end, when all of it is verified.

        Raises Corrupt when the blob is not what it must be, and Unreachable when it cannot be had
        in several attempts.
        """
        for tried in range(1, _RETRIES + 2):
            try:
                return await self._step(into[: self._size - self._at])
            except Unreachable as exc:
                await self.aclose()
                if isinstance(exc, Refused) or tried > _RETRIES:
                    raise
                await _pause(exc, tried)
        raise AssertionError("the last attempt raises or returns")

    async def _step(self, into: memoryview) -> int:
        if not into:
            if self._at == self._size and self._hash.digest() != self._digest.raw:
                raise Corrupt(f"{self._url}: its bytes hash to {self._hash.hexdigest()}")
            return 0
        response = self._response or await self._begin()
        count = await response.receive_into(into)
        if not count:
            raise Corrupt(f"{self._url}: ends at {self._at}, before {self._size}")
        await self._digested(into[:count])
        self._at += count
        return count

    async def _begin(self) -> Response:
        request = self._registry.blob(self._digest)
        if self._at:
            request = replace(request, headers=(("Range", f"bytes={self._at}-"),))
        response = await self._open.enter_async_context(self._registry.ask(request))
        if response.status == 206 and self._at:
            sent = content_range(response.headers)
            if sent is None or sent[0] != self._at:
                raise Corrupt(f"{self._url}: sent {sent} when asked to go on at {self._at}")
        elif response.status == 200:
            if response.length not in (None, self._size):
                raise Corrupt(f"{self._url}: {response.length} bytes, not {self._size}")
            await self._skip(response)
        else:
            raise await refused(response)
        self._response = response
        return response

    async def _skip(self, response: Response) -> None:
        scratch = memoryview(bytearray(min(_PART, self._at)))
        left = self._at
        while left:
            count = await response.fill(scratch[:left], ignore)
            if not count:
                raise Corrupt(f"{self._url}: ended before {self._at}")
            left -= count

    async def _digested(self, part: memoryview) -> None:
        if len(part) < _THREADED:
            self._hash.update(part)
        else:
            await trio.to_thread.run_sync(self._hash.update, part)

    async def copy(self, out: BinaryIO) -> None:
        """Write all of it to *out*."""
        part = memoryview(bytearray(min(_PART, max(1, self._size))))
        while count := await self.receive_into(part):
            out.write(part[:count])

    async def aclose(self) -> None:
        """Let go of the connection; what was received stays counted."""
        self._response = None
        await self._open.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


async def _pause(exc: Unreachable, tried: int) -> None:
    pause = exc.retry_after
    if pause is None:
        pause = min(_PAUSE * 2 ** (tried - 1), _LONGEST_PAUSE)
    logger.info("download goes on later seconds=%.1f reason=%s", pause, exc)
    await trio.sleep(pause)
