"""UrlFile: one file at a url, and which one it is.

What a server says of a file (entity tag, else date, and length) is its *state*. Every range is
asked for with ``If-Range``, and what is said with the answer is compared too, because a server may
ignore the question; whatever differs is Changed, and no byte of it is used. Weak tags may not be
asked with (RFC 9110, 13.1.5), only compared.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from chunkstore.digest import Buffer
from chunkstore.errors import Changed, ChunkstoreError, Corrupt, Unreachable
from chunkstore.http import Client, RangeRead, Request, Response
from chunkstore.http.answers import content_range
from chunkstore.http.client import refused
from chunkstore.http.message import ignore
from chunkstore.http.ranges import receive_range
from chunkstore.source import Arrived

LONGEST_VALIDATOR = 512
"""Characters; the tags of object stores have 34 to 90."""

_UNSATISFIED, _PRECONDITION = 416, 412

Ask = Callable[[Request], AbstractAsyncContextManager[Response]]
"""How a question is put: plainly, or with what a registry wants to be shown."""

TakePart = Callable[[int, Buffer], Awaitable[None]]
"""Takes a part of a stream: its number, and its bytes, which are the stream's again afterwards."""


@dataclass(frozen=True, slots=True)
class State:
    """Which file a url stands for now, as far as its server tells."""

    length: int | None
    """None: only its end will tell."""
    validator: str = ""
    """Its entity tag, else its date, as the server writes it; empty where it gives neither."""
    ranged: bool = True
    """Parts of it can be had."""

    @property
    def if_range(self) -> str:
        """What a range may be asked with; empty: nothing."""
        return "" if self.validator.startswith("W/") else self.validator

    def differs(self, other: State) -> bool:
        """Say whether *other* is surely not the same file: what nobody tells cannot differ."""
        lengths = self.length is not None and other.length is not None
        tags = bool(self.validator and other.validator)
        return (lengths and self.length != other.length) or (
            tags and self.validator != other.validator
        )


def state_of(response: Response) -> State:
    """Return what an answer of 200 or 206 says of its file."""
    headers = response.headers
    tag = headers.get("etag", "").strip() or headers.get("last-modified", "").strip()
    validator = tag if tag.isprintable() and len(tag) <= LONGEST_VALIDATOR else ""
    sent = content_range(headers) if response.status == 206 else None
    if response.status == 206:
        return State(sent[2] if sent else None, validator)
    return State(response.length, validator, ranged=False)


class UrlFile:
    """The file that *request* asks for; an origin of one blob, whatever that is called."""

    def __init__(self, request: Request, ask: Ask, state: State | None = None) -> None:
        """Read the file in *state* and no other one; None: ``probe`` first."""
        self._request = request
        self._ask = ask
        self._state = state

    @classmethod
    def plain(cls, request: Request, client: Client) -> UrlFile:
        """Return the file at a url that any server answers for."""
        return cls(request, client.request)

    def at(self, state: State) -> UrlFile:
        """Return the same file in *state*."""
        return UrlFile(self._request, self._ask, state)

    async def probe(self) -> State:
        """Ask for the first byte, and return what is said of the file.

        Raises Missing, Refused, Unreachable or Corrupt.
        """
        async with self._ask(self._with(("Range", "bytes=0-0"))) as response:
            if response.status == _UNSATISFIED:  # of an empty file there is no first byte
                await response.drain()
                return State(0, replace(state_of(response), length=0).validator, ranged=False)
            if response.status not in (200, 206):
                raise await refused(response)
            _identity(response)
            return state_of(response)

    async def read(self, blob_id: str, start: int, into: memoryview, arrived: Arrived) -> None:
        """Fill *into* with the bytes from *start* on, calling *arrived* as they come.

        One attempt; raises Changed when the file is another one by now, else as any origin.
        """
        wanted = RangeRead(start, into, arrived)
        asked = [("Range", f"bytes={start}-{wanted.stop - 1}")]
        if self._state and self._state.if_range:
            asked.append(("If-Range", self._state.if_range))
        async with self._ask(self._with(*asked)) as response:
            await self._same(response)
            await receive_range(response, wanted)

    async def stream(self, take: TakePart, part_size: int) -> int:
        """Hand the whole file to *take* in order, in parts of *part_size*; return its length.

        One attempt. Raises Changed, and Unreachable when it broke off.
        """
        buffer = bytearray(part_size)
        count = number = 0
        async with self._ask(self._request) as response:
            await self._same(response)
            with memoryview(buffer) as view:
                while more := await response.fill(view, ignore):
                    count += more
                    with view[:more] as part:
                        await take(number, part)
                    number += 1
                    if more < part_size:
                        break
            _ended(response, count)
        return count

    async def _same(self, response: Response) -> None:
        """Raise unless *response* carries the file in the state that is wanted."""
        if response.status in (_UNSATISFIED, _PRECONDITION) and self._state is not None:
            await response.drain()
            raise self._changed("it answers that there is no such part")
        if response.status not in (200, 206):
            raise await refused(response)
        _identity(response)
        found = state_of(response)
        if self._state is not None and self._state.differs(found):
            raise self._changed(f"{_told(found)} was {_told(self._state)}")

    def _with(self, *headers: tuple[str, str]) -> Request:
        return replace(self._request, headers=(*self._request.headers, *headers))

    def _changed(self, words: str) -> ChunkstoreError:
        return Changed(f"{self._request.url}: another file by now, {words}")

    def __repr__(self) -> str:
        return f"UrlFile({self._request.url})"


def _identity(response: Response) -> None:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise Corrupt(f"{response.url}: sent encoded, which was not asked for")


def _ended(response: Response, count: int) -> None:
    if response.length is None and not response.is_over:
        words = "a body that ends with the connection cannot be told from a cut one"
        raise Unreachable(f"{response.url}: {words}")
    if response.length is not None and count != response.length:
        raise Unreachable(f"{response.url}: cut off after {count} of {response.length} bytes")


def _told(state: State) -> str:
    return f"{state.length if state.length is not None else '?'} bytes {state.validator}".strip()
