"""Seeding files: a seed reads at its origin what children want of a file at a url.

What it shall read it is told by a child, and believed in nothing: the task's name is made anew from
url, headers, tag and ignored keys, so that one file's pieces are never published as another's.
Pieces are read in windows ahead of the one that is wanted, each once; every digest is published
before anybody else can have the piece.

Tasks: one per open file and one per window that is being read, in the nursery of ``run``.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import trio

from chunkstore import Changed, ChunkstoreError, Malformed, Missing, Unreachable
from chunkstore.blobcache import BlobCache
from chunkstore.http import Client, Url
from chunkstore.http import Request as HttpRequest
from chunkstore.ledger import Ledger
from chunkstore.origins.url import Ask, UrlFile
from p2p.holdings import Holding
from p2p.messages import Description
from p2p.server import Fetcher
from p2p.swarm import Swarm
from p2p.wire import Request

from .download import FileDownload
from .origin import FromOrigin
from .store import FileStore
from .task import FileTask, Version

logger = logging.getLogger(__name__)

WINDOW = 8
"""Pieces that are read ahead of one that is wanted, in one request."""

MOST_FILES = 256
"""Files that are open; the longest unused is closed for another."""

PATIENCE = 30.0
"""Seconds without a byte after which an origin is given up."""


Asking = Callable[[Url], Ask | None]
"""Returns how a url's server is asked, where it wants more than the question."""

Check = Callable[[Url], None]
"""Raises ChunkstoreError where a url may not be named."""


@dataclass(slots=True)
class _File:
    """A file that is being seeded."""

    store: FileStore
    holding: Holding
    download: FileDownload
    file: UrlFile
    origin: FromOrigin
    nursery: trio.Nursery | None = None
    """What its windows are read in."""
    coming: dict[int, trio.Event] = field(default_factory=dict)
    """Pieces that are being read."""
    failures: dict[int, ChunkstoreError] = field(default_factory=dict)
    """Why those did not come that somebody still waits for."""
    reading_through: bool = False


class FileSeeding:
    """Fetches files for a `Server`."""

    def __init__(
        self,
        cache: BlobCache,
        swarm: Swarm,
        client: Client,
        asking: Asking | None = None,
        check: Check | None = None,
    ) -> None:
        """Ask as *asking* says where a child gives no headers; *client* plainly by default."""
        self._asking = asking
        self._check = check
        self._cache = cache
        self._swarm = swarm
        self._client = client
        self._files: OrderedDict[bytes, _File] = OrderedDict()
        self._opening = trio.Lock()
        self._nursery: trio.Nursery | None = None
        self.ledger = Ledger()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the files until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    async def admits(self, task: bytes, description: Description | None) -> bool:
        """Say whether a child may have a file: who can name a private one has its credentials."""
        return True

    async def open(self, task: bytes, description: Description) -> Holding | None:
        """Return the holding of a version of a file; None where it cannot be seeded."""
        try:
            return (await self._open(task, description)).holding
        except ChunkstoreError as exc:
            logger.info("not seeded file=%s reason=%s", task.hex(), exc)
            return None

    async def fetch(
        self, task: bytes, description: Description | None, request: Request
    ) -> Request:
        """Bring a piece into the cache; raises ChunkstoreError."""
        if description is None:
            raise Missing("nothing is known of where this piece comes from")
        found = await self._open(task, description)
        piece = request.piece
        if piece >= found.store.version.count:
            raise Malformed(f"piece {piece} of {found.store.version.count}")
        while not found.store.has(piece):
            if piece not in found.coming:
                self._begin(found, piece)
            await found.coming[piece].wait()
            failure = found.failures.get(piece)
            if failure is not None:
                raise failure
        return replace(request, chunk=found.store.chunk(piece))

    # Opening.

    async def _open(self, task: bytes, description: Description) -> _File:
        async with self._opening:
            known = self._files.get(task)
            if known is None:
                known = self._files[task] = await self._opened(task, description)
                if len(self._files) > MOST_FILES:
                    _, oldest = self._files.popitem(last=False)
                    assert oldest.nursery is not None
                    oldest.nursery.cancel_scope.cancel()
            self._files.move_to_end(task)
            return known

    async def _opened(self, task: bytes, description: Description) -> _File:
        named, version = _checked(task, description)
        if self._check is not None:
            self._check(named.url)
        store = FileStore(self._cache, version, str(named.url))
        await store.open()
        assert store.shelf is not None
        holding = self._swarm.holdings.lend(task, store.shelf)
        download = FileDownload(self._swarm.handle(), store, self._swarm.parents, holding)
        names = frozenset(name.lower() for name, _ in named.headers)
        asked = HttpRequest("GET", named.url, named.headers, private=names)
        ask = self._asking(named.url) if self._asking and not named.headers else None
        file = UrlFile(asked, ask or self._client.request, version.state)
        origin = FromOrigin(store, file, PATIENCE, self.ledger)
        found = _File(store, holding, download, file, origin)
        assert self._nursery is not None
        await self._nursery.start(self._keep, task, found)
        logger.info("seeding file=%s length=%s", named.url, version.length)
        return found

    async def _keep(self, task: bytes, found: _File, *, task_status: trio.TaskStatus[None]) -> None:
        """Hold one file open."""
        try:
            async with trio.open_nursery() as nursery:
                found.nursery = nursery
                await self._swarm.take_part(found.download)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._swarm.leave(found.download)
            self._swarm.holdings.forget(task)
            await found.store.close()

    # Reading.

    def _begin(self, found: _File, piece: int) -> None:
        """Start to read a window that begins with *piece*."""
        assert found.nursery is not None
        version = found.store.version
        if version.in_order:
            window = [n for n in range(version.count) if n not in found.coming]
        else:
            window = []
            for n in range(piece, min(piece + WINDOW, version.count)):
                if n in found.coming or (n != piece and found.store.has(n)):
                    break
                window.append(n)
        for n in window:
            found.coming[n] = trio.Event()
            found.failures.pop(n, None)
        found.nursery.start_soon(self._read, found, window)

    async def _read(self, found: _File, window: list[int]) -> None:
        async def told(piece: int) -> None:
            found.download.put(piece)
            found.coming.pop(piece).set()

        failure: ChunkstoreError = Unreachable("the seed closes the file")
        try:
            if found.store.version.in_order:
                await found.origin.read_through(told)
            else:
                await found.origin.bring(window, told)
            self._confirm(found)
        except Changed as exc:
            failure = exc
            await self._look_again(found)
        except ChunkstoreError as exc:
            failure = exc
        finally:
            for piece in window:
                waiting = found.coming.pop(piece, None)
                if waiting is not None:
                    found.failures[piece] = failure
                    waiting.set()

    def _confirm(self, found: _File) -> None:
        """Tell, the first time, that the origin has the file that was asked for."""
        if not found.download.fresh:
            found.download.fresh = True
            version = found.store.version
            found.download.tell_origin(version.length or 0, version.validator)

    async def _look_again(self, found: _File) -> None:
        """Tell which file the origin has now."""
        try:
            state = await found.file.probe()
        except ChunkstoreError as exc:
            logger.info("origin does not say what it has reason=%s", exc)
            return
        if state.length is not None and state.validator:
            found.download.tell_origin(state.length, state.validator)


class ByKind:
    """Fetches blobs and files, each as it is done."""

    def __init__(self, blobs: Fetcher, files: Fetcher) -> None:
        self._fetchers = {"blob": blobs, "file": files}

    async def admits(self, task: bytes, description: Description | None) -> bool:
        """Say whether a child may have what is seeded of a task."""
        fetcher = self._fetchers.get(description.kind if description else "blob")
        return fetcher is not None and await fetcher.admits(task, description)

    async def open(self, task: bytes, description: Description) -> Holding | None:
        """Return the holding of a task that is new here; None where it cannot be had."""
        fetcher = self._fetchers.get(description.kind)
        return None if fetcher is None else await fetcher.open(task, description)

    async def fetch(
        self, task: bytes, description: Description | None, request: Request
    ) -> Request:
        """Bring a piece into the cache; raises ChunkstoreError."""
        fetcher = self._fetchers.get(description.kind if description else "")
        if fetcher is None:
            raise Missing("nothing is known of where this piece comes from")
        return await fetcher.fetch(task, description, request)


def _checked(task: bytes, description: Description) -> tuple[FileTask, Version]:
    """Return what *description* is of; raises Malformed where that is not *task*."""
    if description.kind != "file":
        raise Malformed("not a file's description")
    named = FileTask.of(
        Url.parse(description.name),
        tuple(description.headers),
        description.tag,
        frozenset(description.ignored),
        description.shared,
    )
    version = Version(named.id, description.size, description.validator)
    if version.id != task:
        raise Malformed("a description that is not its task's")
    return named, version
