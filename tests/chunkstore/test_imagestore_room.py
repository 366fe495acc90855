"""The image store with others: on a full disk, beside other images, after a crash."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from chunkstore import (
    Blob,
    Buffer,
    Chunk,
    Deliver,
    Digest,
    Extent,
)
from chunkstore.blobcache import BlobCache
from chunkstore.eviction import usage
from chunkstore.originchunks import OriginChunks
from chunkstore.views import LENT
from fixtures.blobs import make_blob
from fixtures.imagestores import (
    MADE,
    SMALL,
    OpenCache,
    chunks_of,
    origin_of,
    plain,
    read_all,
    read_right,
    started,
)
from fixtures.sources import (
    NOBODY,
    CorruptChunks,
    FailingSource,
)


@pytest.mark.logs("kept apart")
class TestSharing:
    async def test_a_hostile_image_neither_poisons_nor_reads(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        twin = make_blob([300_000] * 8 + [17], seed=666, blob_id=MADE.blob.id)
        for first, then in [(twin, MADE), (MADE, twin)]:
            other = BlobCache(cache.root / first.blob.id[:3] / str(first is twin))
            async with trio.open_nursery() as own:
                hostile = await started(own, other, chunks_of(first), owner=Digest.of(b"1"))
                assert await read_all(hostile, first) == plain(first)
                victim = await started(own, other, chunks_of(then), owner=Digest.of(b"2"))
                assert await read_all(victim, then) == plain(then)
                assert await read_all(hostile, first) == plain(first)
                assert victim.look(then.extents()) == plain(then)
                own.cancel_scope.cancel()
            other.close()

    async def test_two_daemons_on_one_folder_read_right(
        self, cache: BlobCache, open_cache: OpenCache, nursery: trio.Nursery
    ) -> None:
        second = open_cache(cache.root)
        stores = [
            await started(nursery, cache, chunks_of(MADE)),
            await started(nursery, second, chunks_of(MADE)),
        ]
        async with trio.open_nursery() as readers:
            for store in stores:
                for _ in range(3):
                    readers.start_soon(read_right, store, MADE)
        for store in stores:
            assert store.look(MADE.extents()) == plain(MADE)


class TestAfterCrash:
    async def test_doubtful_chunks_are_verified_not_fetched(
        self, tmp_path: Path, open_cache: OpenCache, nursery: trio.Nursery
    ) -> None:
        await self.crashed(tmp_path / "c")
        cache = open_cache(tmp_path / "c", boot=b"b" * 16)
        store = await started(nursery, cache, FailingSource(NOBODY))
        assert await read_all(store, MADE) == plain(MADE)

    @pytest.mark.logs("bad chunk dropped")
    async def test_what_the_crash_spoilt_is_fetched_again(
        self, tmp_path: Path, open_cache: OpenCache, nursery: trio.Nursery
    ) -> None:
        data = await self.crashed(tmp_path / "c")
        with data.open("r+b") as file:
            file.seek(MADE.chunks[3].offset + 1000)
            file.write(bytes(4096))
        cache = open_cache(tmp_path / "c", boot=b"b" * 16)
        origin = origin_of(MADE)
        store = await started(nursery, cache, OriginChunks(origin))
        assert await read_all(store, MADE) == plain(MADE)
        assert len(origin.requests) == 1

    async def crashed(self, root: Path) -> Path:
        cache = BlobCache(root, boot=b"a" * 16)
        async with trio.open_nursery() as nursery:
            store = await started(nursery, cache, chunks_of(MADE))
            await read_all(store, MADE)
            for file in cache.open_files():
                file._pair.written = 1 << 40  # as if too much to sync
            nursery.cancel_scope.cancel()
        cache.close()
        return cache.place(MADE.blob.id).data


class TestRoom:
    async def test_a_limit_below_the_image_costs_fetches_not_bytes(
        self, tmp_path: Path, open_cache: OpenCache, nursery: trio.Nursery
    ) -> None:
        made = make_blob([65536] * 100)
        cache = open_cache(tmp_path / "c", limit=2 << 20)
        store = await started(nursery, cache, chunks_of(made))
        for _ in range(2):
            assert await read_all(store, made) == plain(made)
        with trio.fail_after(30):  # an evicting thread may still be at it
            while usage(cache.root) > (2 << 20) + (1 << 20):  # noqa: ASYNC110
                await trio.sleep(0.01)

    async def test_a_reader_gets_its_bytes_however_fast_others_evict(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        class Evicting(CorruptChunks):
            """Takes every chunk away again as soon as it was delivered."""

            async def fetch(self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver) -> None:
                async def take_away(chunk: Chunk, data: Buffer) -> None:
                    await deliver(chunk, data)
                    (file,) = cache.open_files()
                    file.evict([chunk.index], 0)

                await super().fetch(blob, chunks, take_away)

        source = Evicting(chunks_of(MADE), [])
        store = await started(nursery, cache, source)
        assert await store.read([MADE.extent(3), MADE.extent(4)]) == MADE.data(3) + MADE.data(4)
        assert source.fetches <= 6

    async def test_a_view_is_safe_until_its_reader_awaits(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        store = await started(nursery, cache, chunks_of(MADE))
        data = await store.read([MADE.extent(3)])
        (file,) = cache.open_files()
        assert file.evict([3], 0) == 0
        assert data == MADE.data(3)
        await trio.sleep(10 * LENT)
        assert file.evict([3], 0) > 0
        assert store.look([MADE.extent(3)]) is None

    async def test_held_bytes_are_safe_for_as_long_as_they_are_held(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        store = await started(nursery, cache, chunks_of(MADE))
        await store.read([MADE.extent(3)])
        with store.held([MADE.extent(3)]) as data:
            await trio.sleep(0.01)
            (file,) = cache.open_files()
            assert file.evict([3], 0) == 0
            assert data == MADE.data(3)
        await trio.sleep(0.01)
        with store.held([MADE.extent(3)]) as data:
            assert data is None

    async def test_while_an_evictor_is_at_work_replies_are_copies(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        store = await started(nursery, cache, FailingSource(NOBODY))
        filler = await started(nursery, cache, chunks_of(MADE), owner=Digest.of(b"filler"))
        await store.prepare([MADE.blob])
        await filler.read([MADE.extent(3)])
        await trio.sleep(10 * LENT)
        (file,) = cache.open_files()
        results: list[Buffer] = []

        async def reader() -> None:
            results.append(await store.read([MADE.extent(3)]))

        async with trio.open_nursery() as readers:
            with file.lease.exclusive(1) as alone:
                assert alone
                assert store.look([MADE.extent(3)]) is None
                readers.start_soon(reader)
                await wait_all_tasks_blocked(0.05)
                assert results == []
        assert results == [MADE.data(3)]

    async def test_bytes_that_cannot_be_paged_in_are_fetched_again(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        origin = origin_of(MADE)
        store = await started(nursery, cache, OriginChunks(origin))
        await store.read([MADE.extent(3)])
        store.distrust([MADE.extent(3), Extent(None, None, 0, 10)])
        assert store.look([MADE.extent(3)]) is None
        assert await store.read([MADE.extent(3)]) == MADE.data(3)
        assert len(origin.requests) == 2

    @pytest.mark.logs("not cached")
    async def test_without_room_for_a_map_reads_are_served_from_memory(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        (cache.root / "blobs").rmdir()
        (cache.root / "blobs").symlink_to("/dev/full")  # no file can be made in there
        store = await started(nursery, cache, chunks_of(MADE))
        assert await read_all(store, MADE) == plain(MADE)
        assert store.look([MADE.extent(8)]) == MADE.data(8)
        assert 0 < store.statistics().held_size <= 32 << 20
        (cache.root / "blobs").unlink()
        (cache.root / "blobs").mkdir()

    @pytest.mark.kernel
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a tiny disk")
    @pytest.mark.parametrize("size", [100, 1500, 3000])
    @pytest.mark.logs("not cached")
    async def test_a_full_disk_costs_fetches_not_bytes(
        self, tmp_path: Path, nursery: trio.Nursery, size: int
    ) -> None:
        (tmp_path / "disk").mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k,mode=0700", "tmpfs"]
        await trio.run_process([*mount, tmp_path / "disk"])
        try:
            cache = BlobCache(tmp_path / "disk")
            async with trio.open_nursery() as own:
                store = await started(own, cache, chunks_of(MADE, SMALL))
                for made in (MADE, SMALL, MADE):
                    assert await read_all(store, made) == plain(made)
                    store.want(made.blob, made.chunks)
                    assert await store.read(made.extents()) == plain(made)
                own.cancel_scope.cancel()
            cache.close()
        finally:
            await trio.run_process(["umount", "-l", tmp_path / "disk"])
