"""What a mount fetches before anybody reads it: ``--prefetch``."""

from __future__ import annotations

import itertools
import logging
import stat
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import trio

from chunkstore import Blob, Chunk
from chunkstore.checks import Checks
from chunkstore.imagestore import ImageStore
from chunkstore.source import Deliver
from fusefs.daemon import Work
from fusefs.warming import Wish
from rafs import Bootstrap, RafsError

from .setup import Prefetch

logger = logging.getLogger(__name__)

_BATCH_SIZE = 16 << 20
"""Bytes of chunks handed over at once: what lies together is only fetched together if it is asked
for together, and the store makes requests of 4 MiB, three at a time, of it."""

_BATCH = 1024
"""Chunks handed over at once: some milliseconds in which nobody else has a turn."""

_PATIENCE = 5.0
"""Seconds without a scheduler after which what the swarm was to bring is fetched otherwise."""

_PAUSE = 0.1
"""Seconds until the store is asked again whether it has room."""

_COMPLETED = 5.0
"""Seconds between looks at what is nearly whole."""


@runtime_checkable
class Swarm(Protocol):
    """What brings all of a blob: ``p2p.PeerSource``, not loaded where there is no swarm."""

    async def take_all(
        self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver, patience: float
    ) -> bool:
        """Bring all of *blob*; False where that is impossible."""
        ...


async def fetch_ahead(bootstrap: Bootstrap, store: ImageStore, mode: Prefetch) -> None:
    """Have the store fetch what *mode* says, as fast as it takes it, behind all readers.

    Metadata that makes no sense ends that, and nothing else: readers are told by their reads.
    """
    try:
        await _fetch_ahead(bootstrap, store, mode)
    except RafsError as exc:
        logger.warning("no more is fetched ahead: %s", exc)


async def _fetch_ahead(bootstrap: Bootstrap, store: ImageStore, mode: Prefetch) -> None:
    if mode is Prefetch.ALL and isinstance(store.source, Swarm):
        await take_all(bootstrap, store, store.source)
    for blob, chunks in _batches(_chunks(bootstrap, mode)):
        while chunks:  # the store takes what it has room for
            taken = store.want(blob, chunks)
            chunks = chunks[taken:]
            if chunks:
                await trio.sleep(_PAUSE)
        await trio.lowlevel.checkpoint()


async def take_all(bootstrap: Bootstrap, store: ImageStore, peers: Swarm) -> None:
    """Have everything come through the swarm, as far as there is one.

    In the order in which readers might want it all hosts would ask for the same chunks at the same
    time; so the swarm decides about the order.
    """
    for number, blob in enumerate(bootstrap.blobs):
        chunks = await trio.to_thread.run_sync(partial(_listed, bootstrap, number))
        await peers.take_all(blob, chunks, partial(store.put, blob), _PATIENCE)


def _listed(bootstrap: Bootstrap, number: int) -> list[Chunk]:
    return sorted(bootstrap.chunks(number), key=lambda chunk: chunk.index)


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
            below = [child for _, child, _ in bootstrap.scan(nid, 0)]
            waiting.extend(reversed(below))


def _batches(places: Iterator[tuple[Blob, Chunk]]) -> Iterator[tuple[Blob, list[Chunk]]]:
    for blob, group in itertools.groupby(places, key=lambda place: place[0]):
        batch: dict[int, Chunk] = {}
        size = 0
        for _, chunk in group:
            batch[chunk.index] = chunk
            size += chunk.size
            if size >= _BATCH_SIZE or len(batch) == _BATCH:
                yield blob, list(batch.values())
                batch, size = {}, 0
        if batch:
            yield blob, list(batch.values())


class Together:
    """``naiad warm`` of a whole image in a swarm: by ``take_all`` first, then by whoever warms.

    Tasks: one that brings everything, in the nursery that is passed.
    """

    def __init__(self, bootstrap: Bootstrap, store: ImageStore, nursery: trio.Nursery) -> None:
        self._bootstrap = bootstrap
        self._store = store
        self._nursery = nursery
        self._is_running = self._is_done = False

    def around(self, ask: Work) -> Work:
        """Return *ask*, which warms, with the swarm's own order before it."""
        source = self._store.source
        if not isinstance(source, Swarm):
            return ask

        async def asked(argument: bytes) -> Mapping[str, object]:
            if not self._is_done and not Wish.parse(argument).paths:
                if not self._is_running:
                    self._is_running = True
                    self._nursery.start_soon(self._take_all, source)
                return self._told()
            return await ask(argument)

        return asked

    async def _take_all(self, peers: Swarm) -> None:
        await take_all(self._bootstrap, self._store, peers)
        self._is_done = True

    def _told(self) -> Mapping[str, object]:
        total = sum(blob.size for blob in self._bootstrap.blobs)
        here = min(self._store.statistics().ready_size, total)
        return {
            "files": 0,
            "bytes": total + 1,  # until it was looked at, file by file
            "here_bytes": here,
            "failed_bytes": 0,
            "last_error": "",
        }


async def complete(bootstrap: Bootstrap, store: ImageStore, checks: Checks) -> None:
    """Have the rest of files fetched of which half is here, behind all readers, to check them.

    A loader maps weights, and touches most of their pages: without this they would never be whole.
    """
    numbers = {blob.id: number for number, blob in enumerate(bootstrap.blobs)}
    while True:
        await trio.sleep(_COMPLETED)
        for blob_id, missing in checks.nearly.items():
            number, wanted = numbers[blob_id], set(missing)
            chunks = [chunk for chunk in bootstrap.chunks(number) if chunk.index in wanted]
            store.want(bootstrap.blobs[number], chunks)
