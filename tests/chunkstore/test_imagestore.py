"""The image store: reads through cache and source."""

from __future__ import annotations

from pathlib import Path

import trio

from chunkstore import Digest
from chunkstore.blobcache import BlobCache
from chunkstore.imagestore import ImageStore
from chunkstore.memory import MemoryOrigin
from chunkstore.originchunks import OriginChunks
from fixtures.blobs import make_blob


async def test_what_was_read_once_is_looked_at(tmp_path: Path, nursery: trio.Nursery) -> None:
    made = make_blob([300_000] * 8 + [17])
    origin = MemoryOrigin({made.blob.id: made.stored})
    store = ImageStore(
        BlobCache(tmp_path), OriginChunks(origin), owner=Digest.of(b"image"), deadline=30
    )
    await nursery.start(store.run)
    assert store.look([made.extent(3)]) is None
    assert await store.read([made.extent(3, 10, 2000)]) == made.data(3)[10:2000]
    assert store.look([made.extent(3)]) == made.data(3)
    assert len(origin.requests) == 1
    whole = await store.read(made.extents())
    assert bytes(whole) == b"".join(made.data(index) for index in range(9))
