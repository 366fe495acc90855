"""Seeding: a seed gets what it does not have yet from the origin that a task's description names.

Each task has an image store of its own over the seed's cache, so that a piece is fetched once
however many children ask, verified as it enters, and evicted when the cache is full. What a child
says of a chunk is believed by nobody: it is fetched from the place it names, and kept only if it
matches its digest.

Tasks: one per open store, in the nursery of ``run``.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import trio

from chunkstore import (
    Algorithm,
    Blob,
    ChunkSource,
    ChunkstoreError,
    Digest,
    Extent,
    Malformed,
    Missing,
)
from chunkstore.blobcache import BlobCache
from chunkstore.imagestore import ImageStore

from .holdings import Holding, Holdings
from .messages import Description
from .task import blob_task
from .wire import Request

logger = logging.getLogger(__name__)

WORKERS = 3
"""Fetches of one task side by side. What waits meanwhile is fetched together, in order: so the next
piece is here soon, where eight at once would all come late (1 MiB over 100 Mbit/s: 0.7 s)."""

MOST_TASKS = 256
"""Stores that are open; the longest unused is closed for another."""

DEADLINE = 30.0
"""Seconds without a byte after which an origin is given up."""

Admits = Callable[[Description], Awaitable[bool]]
"""Says whether a child may have what a seed reads of its description's origin."""

Origins = Callable[[str], AbstractAsyncContextManager[ChunkSource]]
"""Opens the origin that a description names; raises ChunkstoreError."""


@dataclass(slots=True)
class _Task:
    store: ImageStore
    holding: Holding
    blob: Blob
    scope: trio.CancelScope


class Seeding:
    """Fetches for a `Server`."""

    def __init__(
        self,
        cache: BlobCache,
        holdings: Holdings,
        origins: Origins,
        admits: Admits | None = None,
    ) -> None:
        """Give everybody what is asked for, unless *admits* says who may have it."""
        self._admits = admits
        self._cache = cache
        self._holdings = holdings
        self._origins = origins
        self._tasks: OrderedDict[bytes, _Task] = OrderedDict()
        self._opening = trio.Lock()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the stores until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    async def admits(self, task: bytes, description: Description | None) -> bool:
        """Say whether a child may have what is seeded of a task.

        What lies in the cache came from one origin, which is asked; a child that names another one
        could bring a registry of its own that admits everybody.
        """
        if self._admits is None:
            return True
        if description is None or description.kind != "blob":
            return False
        if blob_task(description.name) != task or not await self._admits(description):
            return False
        origin = await trio.to_thread.run_sync(self._claimed, description)
        return origin == description.origin

    def _claimed(self, description: Description) -> str:
        """Return where a blob in the cache comes from: noted beside it by who is first."""
        path = self._cache.place(description.name).data.with_suffix(".origin")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return path.read_text()
        except OSError:  # no room: nothing can be kept of it either
            return ""
        with os.fdopen(fd, "w") as file:
            file.write(description.origin)
        return description.origin

    async def open(self, task: bytes, description: Description) -> Holding | None:
        """Return the holding of a task; None where its origin cannot be had."""
        try:
            return (await self._open(task, description)).holding
        except ChunkstoreError as exc:
            logger.info("not seeded blob=%s reason=%s", description.name, exc)
            return None

    async def fetch(
        self, task: bytes, description: Description | None, request: Request
    ) -> Request:
        """Bring a piece into the cache; raises ChunkstoreError."""
        if description is None or request.chunk is None:
            raise Missing("nothing is known of where this piece comes from")
        known = await self._open(task, description)
        await known.store.read([Extent(known.blob, request.chunk, 0, request.chunk.size)])
        known.holding.note(request.chunk.index)
        return request

    async def _open(self, task: bytes, description: Description) -> _Task:
        async with self._opening:
            known = self._tasks.get(task)
            if known is None:
                known = await self._begin(task, description)
                self._tasks[task] = known
                if len(self._tasks) > MOST_TASKS:
                    _, oldest = self._tasks.popitem(last=False)
                    oldest.scope.cancel()
            self._tasks.move_to_end(task)
            return known

    async def _begin(self, task: bytes, description: Description) -> _Task:
        if description.kind != "blob" or blob_task(description.name) != task:
            raise Malformed("a description that is not its task's")
        if not description.origin:
            raise Missing("its origin is not where a seed could reach it")
        blob = Blob(description.name, description.size, 0, description.pieces)
        assert self._nursery is not None
        opened: list[_Task] = []
        try:
            opened.append(await self._nursery.start(self._keep, task, blob, description.origin))
        except* ChunkstoreError as group:
            raise _first(group) from group
        return opened[0]

    async def _keep(
        self, task: bytes, blob: Blob, origin: str, *, task_status: trio.TaskStatus[_Task]
    ) -> None:
        """Hold one store open; what goes wrong before it is open is the caller's."""
        async with self._origins(origin) as source, trio.open_nursery() as nursery:
            owner = Digest(Algorithm.BLAKE3, task)
            store = ImageStore(self._cache, source, owner=owner, deadline=DEADLINE)
            store.workers = WORKERS
            await nursery.start(store.run)
            await store.prepare([blob])
            shelf = store.shelf(blob)
            if shelf is None:
                raise Missing(f"blob {blob.id}: no room in the cache")
            holding = self._holdings.lend(task, shelf)
            logger.info("seeding blob=%s origin=%s", blob.id, origin)
            with trio.CancelScope() as scope:
                task_status.started(_Task(store, holding, blob, scope))
                await trio.sleep_forever()
            self._holdings.forget(task)
            nursery.cancel_scope.cancel()


def _first(group: BaseExceptionGroup[ChunkstoreError]) -> ChunkstoreError:
    """Return the one error that nurseries have wrapped."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, ChunkstoreError)
    return found
