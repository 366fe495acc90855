"""A range of a file, whatever the server makes of the question."""

from __future__ import annotations

from dataclasses import dataclass, replace

from chunkstore.errors import ChunkstoreError, Corrupt, Unreachable
from chunkstore.source import Arrived

from .answers import content_range, strong_etag, unsatisfied_size
from .client import Client, refused
from .message import Request, Response, ignore

SKIPPED = 64 << 20
"""Bytes that are read and thrown away when a server sends a file from its start: 5 s at 100 Mbit/s,
and every chunk of an image of that size can be had. Beyond, such a server is of no use."""

_SCRATCH = 256 << 10


@dataclass(frozen=True, slots=True)
class RangeRead:
    """Which bytes are wanted, and where."""

    start: int
    into: memoryview
    arrived: Arrived
    validator: str | None = None
    """The strong entity tag that the file had before; another one is an error."""

    @property
    def stop(self) -> int:
        """Behind the last byte."""
        return self.start + len(self.into)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """How to ask for it."""
        wanted = (("Range", f"bytes={self.start}-{self.stop - 1}"),)
        return (*wanted, ("If-Range", self.validator)) if self.validator else wanted


def ranged(request: Request, wanted: RangeRead) -> Request:
    """Return *request* asking for a range."""
    return replace(request, headers=request.headers + wanted.headers)


async def read_range(client: Client, request: Request, wanted: RangeRead) -> str | None:
    """Read the range of *request*'s file; return its strong entity tag, if it has one."""
    if not wanted.into:
        return wanted.validator
    async with client.request(ranged(request, wanted)) as response:
        return await receive_range(response, wanted)


async def receive_range(response: Response, wanted: RangeRead) -> str | None:
    """Receive the range from an answer; return the strong entity tag, if there is one.

    Raises Corrupt when the answer is not the range or not of the same file, else Unreachable,
    Refused or Missing.
    """
    tag = strong_etag(response.headers)
    if response.status in (200, 206) and wanted.validator and tag and tag != wanted.validator:
        raise Corrupt(f"{response.url}: replaced by another file, {tag} was {wanted.validator}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise Corrupt(f"{response.url}: sent encoded, which ranges must not be")
    if response.status == 206:
        _check(response, wanted)
    elif response.status == 200:
        await _skip(response, wanted)
    else:
        raise await refused(response)
    await _receive(response, wanted)
    return tag


async def _receive(response: Response, wanted: RangeRead) -> None:
    count = await response.fill(wanted.into, wanted.arrived)
    if count < len(wanted.into):
        if not response.is_over:
            raise Unreachable(f"{response.url}: cut off {len(wanted.into) - count} bytes too early")
        raise Corrupt(f"{response.url}: {count} bytes where {len(wanted.into)} were announced")
    # Chunked bodies are over only when their end was seen; anything before it is too much.
    if response.is_over or response.status != 206:
        return
    if await response.fill(memoryview(bytearray(1)), ignore):
        raise Corrupt(f"{response.url}: more bytes than were announced")


def _check(response: Response, wanted: RangeRead) -> None:
    sent = content_range(response.headers)
    if sent is None:
        raise Corrupt(f"{response.url}: a partial answer that does not say which part")
    start, stop, size = sent
    if start == wanted.start and stop == size and stop < wanted.stop:
        raise Corrupt(f"{response.url}: ends at {size}, before {wanted.stop}")
    if (start, stop) != (wanted.start, wanted.stop):
        raise Corrupt(
            f"{response.url}: sent [{start}, {stop}), not [{wanted.start}, {wanted.stop})"
        )
    if response.length not in (None, stop - start):
        raise Corrupt(f"{response.url}: a range of {stop - start} bytes in {response.length}")


async def _skip(response: Response, wanted: RangeRead) -> None:
    if response.length is not None and response.length < wanted.stop:
        raise Corrupt(f"{response.url}: ends at {response.length}, before {wanted.stop}")
    if wanted.start > SKIPPED:
        raise Unreachable(f"{response.url}: this server cannot send ranges, only whole files")
    scratch = memoryview(bytearray(min(_SCRATCH, wanted.start)))
    left = wanted.start
    while left:
        count = await response.fill(scratch[:left], ignore)
        if not count:
            raise Corrupt(f"{response.url}: ended before {wanted.start}")
        left -= count


async def file_size(client: Client, request: Request) -> int:
    """Return the bytes of *request*'s file.

    Asks for its first byte: urls signed for GET refuse HEAD.
    """
    wanted = RangeRead(0, memoryview(bytearray(1)), ignore)
    async with client.request(ranged(request, wanted)) as response:
        return await received_size(response)


async def received_size(response: Response) -> int:
    """Return the file's size from an answer to a request for its first byte."""
    size: int | None = None
    if response.status == 206:
        sent = content_range(response.headers)
        size = sent[2] if sent else None
    elif response.status == 200:
        size = response.length
    elif response.status == 416:
        size = unsatisfied_size(response.headers)
    if response.status not in (200, 206) and size is None:
        raise await refused(response)
    if size is None:
        raise _unsized(response)
    if response.status != 200:
        await response.drain()
    return size


def _unsized(response: Response) -> ChunkstoreError:
    return Unreachable(f"{response.url}: does not say how long it is")
