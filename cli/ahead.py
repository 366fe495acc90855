"""What a mount fetches before anybody reads it: ``--prefetch``."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator

import trio

from chunkstore import Blob, Chunk
from chunkstore.imagestore import ImageStore
from rafs import Bootstrap

from .setup import Prefetch

_BATCH = 64
"""Chunks handed over at once."""

_PAUSE = 0.1
"""Seconds until the store is asked again whether it has room."""


async def fetch_ahead(bootstrap: Bootstrap, store: ImageStore, mode: Prefetch) -> None:
    """Have the store fetch what *mode* says, as fast as it takes it, behind all readers."""
    for blob, chunks in _batches(_chunks(bootstrap, mode)):
        while chunks:
            taken = store.want(blob, chunks)
            chunks = chunks[taken:]
            if chunks:
                await trio.sleep(_PAUSE)
        await trio.lowlevel.checkpoint()


def _chunks(bootstrap: Bootstrap, mode: Prefetch) -> Iterator[tuple[Blob, Chunk]]:
    if mode is Prefetch.ALL:
        for number, blob in enumerate(bootstrap.blobs):
            for chunk in bootstrap.chunks(number):
                yield blob, chunk
    elif mode is Prefetch.LIST:
        for nid in _files(bootstrap):
            for place in bootstrap.file_chunks(nid):
                if place is not None:
                    yield place


def _files(bootstrap: Bootstrap) -> Iterator[int]:
    """Yield the regular files that the image lists, with those below the directories it lists."""
    seen: set[int] = set()
    waiting = list(reversed(bootstrap.prefetch))
    while waiting:
        nid = waiting.pop()
        if nid in seen:
            continue
        seen.add(nid)
        mode = bootstrap.attributes(nid)[0]
        if stat.S_ISREG(mode):
            yield nid
        elif stat.S_ISDIR(mode):
            waiting.extend(child for _, child, _ in bootstrap.scan(nid, 0))


def _batches(places: Iterator[tuple[Blob, Chunk]]) -> Iterator[tuple[Blob, list[Chunk]]]:
    for blob, group in itertools.groupby(places, key=lambda place: place[0]):
        while batch := [chunk for _, chunk in itertools.islice(group, _BATCH)]:
            yield blob, batch
