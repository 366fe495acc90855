"""Every chunk of an image, fetched and verified: ``naiad check --data``."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable

from chunkstore import Blob, Buffer, Chunk, ChunkstoreError
from chunkstore.originchunks import OriginChunks

from .stack import Image

_BATCH = 256
"""Chunks that are asked for at once."""

_LISTED = 100
"""Findings of one blob that are told one by one."""


async def faults(image: Image, advance: Callable[[int], None]) -> AsyncIterator[str]:
    """Yield what is wrong with the image's data, telling *advance* the bytes looked at so far."""
    source = OriginChunks(image.origin)
    done = 0
    for number, blob in enumerate(image.bootstrap.blobs):
        found = 0
        chunks = iter(image.bootstrap.chunks(number))
        while batch := list(itertools.islice(chunks, _BATCH)):
            for fault in await _batch(source, blob, batch):
                found += 1
                if found <= _LISTED:
                    yield fault
            done += sum(chunk.size for chunk in batch)
            advance(done)
        if found > _LISTED:
            yield f"blob {blob.id}: {found - _LISTED} chunks more"


async def _batch(source: OriginChunks, blob: Blob, chunks: list[Chunk]) -> list[str]:
    """Fetch *chunks* and return what is wrong with them."""
    waiting = {chunk.index: chunk for chunk in chunks}
    found: list[str] = []

    async def deliver(chunk: Chunk, data: Buffer) -> None:
        del waiting[chunk.index]
        if not chunk.digest.matches(data):
            found.append(_said(blob, chunk, f"does not match its digest {chunk.digest}"))

    try:
        await source.fetch(blob, chunks, deliver)
    except ChunkstoreError as exc:
        found.extend(_said(blob, chunk, f"could not be had: {exc}") for chunk in waiting.values())
    return found


def _said(blob: Blob, chunk: Chunk, what: str) -> str:
    return f"blob {blob.id}, chunk {chunk.index} at byte {chunk.stored_offset}: {what}"
