"""A whole file as a stream: into a file, or part by part."""

from __future__ import annotations

from typing import BinaryIO

from chunkstore.errors import Corrupt, Unreachable

from .client import Client, refused
from .message import Request

_PART = 1 << 20
"""Bytes that are written at once."""


async def download(client: Client, request: Request, out: BinaryIO, limit: int) -> int:
    """Write *request*'s file to *out*; return its bytes, Corrupt if they are more than *limit*."""
    async with client.request(request) as response:
        if response.status != 200:
            raise await refused(response)
        if response.length is not None and response.length > limit:
            raise Corrupt(f"{request.url}: {response.length} bytes where {limit} are the most")
        count = 0
        part = memoryview(bytearray(_PART))
        while more := await response.receive_into(part):
            count += more
            if count > limit:
                raise Corrupt(f"{request.url}: more than {limit} bytes")
            out.write(part[:more])
        if response.length is None and not response.is_over:
            words = "a body that ends with the connection cannot be told from a cut one"
            raise Unreachable(f"{request.url}: {words}")
        return count
