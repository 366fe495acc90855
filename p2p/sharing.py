"""Sharing: what lies in a cache, offered to a swarm by a host that wants nothing itself."""

from __future__ import annotations

import logging

import trio

from chunkstore import ChunkstoreError
from chunkstore.blobcache import BlobCache
from chunkstore.whole import Vouched

from .download import Download
from .files.download import FileDownload
from .files.store import FileStore, label
from .files.task import Version
from .files.wholes import CheckedHolding, describe, whole_task
from .swarm import Swarm

logger = logging.getLogger(__name__)


class Sharing:
    """Offers blobs, and files with the digests that stand beside them."""

    def __init__(self, swarm: Swarm, cache: BlobCache) -> None:
        self._swarm = swarm
        self._cache = cache
        self._stores: dict[str, FileStore] = {}
        self._refused: set[str] = set()
        self._vouched = Vouched(cache.root)
        self._wholes: set[str] = set()

    async def share(self, name: str) -> None:
        """Offer what the cache has under a blob's name, if that has not been done."""
        if name in self._stores or name in self._refused:
            return
        path = self._cache.place(name).data.with_suffix(".digests")
        found = await trio.to_thread.run_sync(label, path)
        if found is None:
            await self._swarm.share(name)
            await self._share_whole(name)
            return
        version = Version(found.task, found.length, found.validator)
        if version.blob_id != name or not version.shareable:
            self._refused.add(name)
            return
        try:
            await self._share_file(name, FileStore(self._cache, version, found.name))
        except ChunkstoreError as exc:
            self._refused.add(name)
            logger.info("not shared file=%s reason=%s", found.name, exc)

    async def _share_whole(self, name: str) -> None:
        """Offer a file of a hub that was checked here, if that has not been done."""
        if name in self._wholes:
            return
        known = await trio.to_thread.run_sync(self._vouched.of_blob, name)
        if known is None:
            return
        checksum, digests = known
        file = await trio.to_thread.run_sync(self._cache.reopen, self._cache.place(name))
        if file is None:
            return
        self._wholes.add(name)
        holding = CheckedHolding(whole_task(checksum), file, digests)
        self._swarm.holdings.add(holding)
        told = describe(checksum, file.size, len(digests))
        handle = self._swarm.handle()
        download = Download(handle, holding.task, told, self._swarm.parents, holding)
        await self._swarm.take_part(download)

    async def _share_file(self, name: str, store: FileStore) -> None:
        await store.open()
        assert store.shelf is not None
        self._stores[name] = store
        holding = self._swarm.holdings.lend(store.version.id, store.shelf)
        handle = self._swarm.handle()
        download = FileDownload(handle, store, self._swarm.parents, holding)
        await self._swarm.take_part(download)

    async def close(self) -> None:
        """Give the files back; may wait for the disk."""
        with trio.CancelScope(shield=True):
            for store in self._stores.values():
                await store.close()
        self._stores.clear()
