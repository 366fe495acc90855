"""Sharing: what lies in a cache, offered to a swarm by a host that wants nothing itself."""

from __future__ import annotations

import logging

import trio

from chunkstore import ChunkstoreError
from chunkstore.blobcache import BlobCache

from .filedownload import FileDownload
from .filestore import FileStore, label
from .filetask import Version
from .swarm import Swarm

logger = logging.getLogger(__name__)


class Sharing:
    """Offers blobs, and files with the digests that stand beside them."""

    def __init__(self, swarm: Swarm, cache: BlobCache) -> None:
        self._swarm = swarm
        self._cache = cache
        self._stores: dict[str, FileStore] = {}
        self._refused: set[str] = set()

    async def share(self, name: str) -> None:
        """Offer what the cache has under a blob's name, if that has not been done."""
        if name in self._stores or name in self._refused:
            return
        path = self._cache.place(name).data.with_suffix(".digests")
        found = await trio.to_thread.run_sync(label, path)
        if found is None:
            await self._swarm.share(name)
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
