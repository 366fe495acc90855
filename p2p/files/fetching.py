"""Fetching: one file at a url, into the cache, and from there to where it is wanted.

Which file the url stands for is asked first; its pieces then come from wherever they are. A file
that changes meanwhile is begun again as the new one, a few times; pieces of both never meet.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from chunkstore import Changed, ChunkstoreError, Corrupt, Digest, Refused, Unreachable
from chunkstore.blobcache import BlobCache
from chunkstore.ledger import Ledger
from chunkstore.origins.url import State, UrlFile
from chunkstore.outfile import Going, unfinished
from p2p.swarm import Swarm

from .asking import known_state
from .download import FileDownload, describe
from .origin import FromOrigin, probed
from .prefix import Prefix
from .store import FileStore
from .task import FileTask, version

logger = logging.getLogger(__name__)

CHANGES = 3
"""How often a file may be replaced while it is being fetched."""

CONFLICTS = 2
"""How often the swarm may have another file than the origin, before it is left."""

STDOUT = Path("-")

_PAUSES = (0.2, 1.0, 3.0)
"""Seconds before an origin that does not answer is asked again; somebody waits."""


Moved = Callable[[int, int | None], None]
"""Told how many bytes are here, and of how many, if anybody knows."""


def _ignore(_done: int, _total: int | None) -> None:
    """Have no use for how far it is."""


class Mismatch(Corrupt):
    """The whole file is not what it must hash to."""


class Fetching:
    """One fetch, as far as it has come."""

    def __init__(
        self,
        task: FileTask,
        file: UrlFile,
        cache: BlobCache,
        *,
        patience: float = 30.0,
        moved: Moved = _ignore,
        swarm: Swarm | None = None,
    ) -> None:
        """Give the origin up when nothing has come for *patience* seconds."""
        self.task = task
        self.ledger = Ledger()
        self._file = file
        self._cache = cache
        self._patience = patience
        self._moved = moved
        self._swarm = swarm
        self._disbelieved = set[tuple[int, str]]()
        """States that the swarm told of, after which the origin was asked again."""
        self._conflicts = 0
        """How often the swarm had another file than the origin."""
        self._store: FileStore | None = None
        self._part: FileDownload | None = None
        """In the swarm, where what is here is had by others until it is written out."""
        self._hashes = False
        """The file must hash to something."""
        self._prefix: Prefix | None = None

    @property
    def done(self) -> int:
        """Bytes that are here."""
        store = self._store
        if store is None:
            return 0
        done = len(store.ready) * store.version.piece_size
        length = store.version.length
        return done if length is None else min(done, length)

    @property
    def total(self) -> int | None:
        """Bytes of the file, if anybody knows."""
        return self._store.version.length if self._store else None

    @asynccontextmanager
    async def fetched(self) -> AsyncIterator[FileStore]:
        """Yield the file's store when all of it is there; raises ChunkstoreError."""
        try:
            yield await self._fetched()
        finally:
            self._leave()
            if self._store is not None:
                await self._store.close()

    async def fetch_to(self, path: Path, digest: Digest | None) -> tuple[int, str]:
        """Fetch the file and write it to *path*; return its length and how it was copied.

        One that does not hash to *digest* though all its pieces were as the swarm said is read at
        its origin, once more: somebody may have published lies. Raises ChunkstoreError or OSError.
        """
        self._hashes = digest is not None
        async with self.fetched() as store:
            try:
                how = await put_out(store, path, digest, self._prefix)
            except Mismatch as exc:
                if not self._helped:
                    raise
                logger.warning("reading the origin alone: %s", exc)
                await self._again(store)
                how = await put_out(store, path, digest, self._prefix)
            return store.version.length or 0, how

    async def _again(self, store: FileStore) -> None:
        """Forget what others said of the file, and read all of it where it comes from."""
        self._leave()
        store.forget()
        self._swarm = None
        version = store.version
        await self._fill(store, self._file.at(version.state), fresh=False)

    @property
    def _helped(self) -> bool:
        """Whether anything came from peers."""
        tally = self.ledger.tallies.get("peer")
        return self._swarm is not None and tally is not None and tally.size > 0

    async def _fetched(self) -> FileStore:
        for left in range(CHANGES, -1, -1):
            state, fresh = await self._probed()
            store = await self._opened(state)
            try:
                await self._fill(store, self._file.at(state), fresh)
                return store
            except Changed as exc:
                if not left:
                    raise
                logger.info("file changed, beginning anew reason=%s", exc)
        raise AssertionError("the last change is raised")

    async def _probed(self) -> tuple[State, bool]:
        """Return which file there is, and whether the origin says so or the swarm."""
        if self._swarm is None:
            return await probed(self._file, _PAUSES), True
        try:
            return await probed(self._file, _PAUSES[:1]), True
        except Refused:
            raise
        except Unreachable as exc:
            known = await known_state(self._swarm, self.task)
            if known is None:
                raise
            logger.info("origin does not answer, the swarm does reason=%s", exc)
            return known, False

    async def _opened(self, state: State) -> FileStore:
        if self._store is not None:
            await self._store.close()
        found = version(self.task.id, state, secrets.token_hex(8))
        store = self._store = FileStore(self._cache, found, str(self.task.url))
        await store.open(verify=True)
        for piece in store.ready:
            self.ledger.add("cache", chunks=1, size=found.size(piece))
        return store

    async def _fill(self, store: FileStore, file: UrlFile, fresh: bool) -> None:
        """Get what is missing; what is here is hashed meanwhile, where somebody will ask."""
        self._prefix = Prefix(store) if self._hashes else None
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            if self._prefix is not None:
                nursery.start_soon(self._prefix.follow)
            try:
                await self._bring(store, file, fresh)
            except (ChunkstoreError, OSError) as exc:
                failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _bring(self, store: FileStore, file: UrlFile, fresh: bool) -> None:
        self._moved_on()

        async def told(_piece: int) -> None:
            self._moved_on()

        origin = FromOrigin(store, file, self._patience, self.ledger)
        if self._swarm is not None and store.version.shareable and self._conflicts < CONFLICTS:
            await self._through(self._swarm, store, origin, fresh)
        elif store.version.in_order:
            await origin.read_through(told)
        else:
            await origin.bring(store.missing(), told)

    async def _through(
        self, swarm: Swarm, store: FileStore, origin: FromOrigin, fresh: bool
    ) -> None:
        """Get what is missing through the swarm."""
        assert store.shelf is not None
        holding = swarm.holdings.lend(store.version.id, store.shelf)
        whole = describe(self.task, store.version)
        download = FileDownload(swarm.handle(), store, swarm.parents, holding, whole)
        download.fresh = fresh
        download.disbelieve(self._disbelieved)
        self._part = download
        try:
            await swarm.take_part(download)
            await download.complete(origin, self.ledger, self._moved_on)
        except Changed:
            self._conflicts += 1
            if download.other is not None:
                self._disbelieved.add(download.other)
            self._leave()
            raise

    def _leave(self) -> None:
        """Take part no longer."""
        download, self._part = self._part, None
        if download is not None and self._swarm is not None:
            self._swarm.leave(download)
            self._swarm.holdings.forget(download.task)

    def _moved_on(self) -> None:
        if self._prefix is not None:
            self._prefix.moved()
        self._moved(self.done, self.total)


async def put_out(
    store: FileStore, path: Path, digest: Digest | None, prefix: Prefix | None = None
) -> str:
    """Write the file to *path*, whole or not at all; return how it was copied.

    *prefix* is what was hashed of it. A device or a pipe is written into. Raises Corrupt when the
    file does not hash to *digest*, OSError when *path* cannot be written.
    """

    def going(_done: int) -> None:
        trio.from_thread.check_cancelled()

    # first: what is wrong shall not be seen anywhere
    await trio.to_thread.run_sync(_check, store, digest, prefix or Prefix(store))
    return await trio.to_thread.run_sync(_put_out, store, path, going)


def _put_out(store: FileStore, path: Path, going: Going) -> str:
    if path == STDOUT:
        return _written(store, sys.stdout.fileno(), going)
    if path.exists() and not path.is_file():
        with path.open("wb") as out:
            return _written(store, out.fileno(), going)
    with unfinished(Path(os.path.realpath(path))) as fd:
        file, length = store.file(), store.version.length or 0
        if file is None:
            return _written(store, fd, going)
        with file.lease.shared():
            _check_all(store)
            return file.export(fd, length, going)


def _written(store: FileStore, out: int, going: Going) -> str:
    """Write the file piece by piece."""
    done = 0
    for piece in range(store.version.count):
        rest = memoryview(store.read(piece))
        while rest:
            rest = rest[os.write(out, rest) :]
        done += store.version.size(piece)
        going(done)
    return "copy"


def _check(store: FileStore, digest: Digest | None, prefix: Prefix) -> None:
    """Raise Corrupt unless all pieces are here, and hash to *digest*."""
    _check_all(store)
    if digest is None:
        return
    found = prefix.finish()
    if found is None:
        raise Corrupt(f"{store.name}: piece {prefix.done} left the cache before it was used")
    if found != digest.hex:
        raise Mismatch(f"{store.name}: hashes to sha256:{found}, not {digest}")


def _check_all(store: FileStore) -> None:
    missing = store.missing()
    if missing:
        raise Corrupt(f"{store.name}: {len(missing)} pieces left the cache before they were used")
