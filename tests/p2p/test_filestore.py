"""A file's pieces in the cache, with their digests beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from chunkstore import CacheUnusable
from chunkstore.blobcache import BlobCache
from p2p.files.store import FileStore
from p2p.files.task import Version


def open_files(folder: Path) -> list[str]:
    """Return what this process has open below *folder*, but for what ends meanwhile."""
    links = (fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink())
    return [str(link) for link in links if link.is_relative_to(folder)]


async def test_a_store_whose_digests_cannot_be_opened_keeps_nothing_open(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path)
    version = Version(bytes(32), 5, "")
    store = FileStore(cache, version, "http://origin/f")
    digests = cache.place(version.blob_id).data.with_suffix(".digests")
    digests.mkdir(parents=True)

    with pytest.raises(CacheUnusable, match="Is a directory"):
        await store.open()

    assert not [name for name in open_files(tmp_path) if name.endswith((".data", ".map"))]
    cache.close()
