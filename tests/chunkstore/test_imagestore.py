"""The image store: reads through cache and sources."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from chunkstore import (
    Blob,
    Chunk,
    Codec,
    Digest,
    Extent,
    Unreachable,
)
from chunkstore.blobcache import BlobCache
from chunkstore.fetcher import WORKERS
from chunkstore.imagestore import ImageStore
from chunkstore.ledger import Ledger, Tally
from chunkstore.memory import MemoryOrigin
from chunkstore.originchunks import OriginChunks
from chunkstore.readymap import READY
from chunkstore.stack import Counted
from chunkstore.width import START
from fixtures.blobs import make_blob
from fixtures.imagestores import (
    MADE,
    OWNER,
    SMALL,
    OpenCache,
    chunks_of,
    expect_unreachable,
    origin_of,
    plain,
    read_all,
    started,
)
from fixtures.sources import (
    NOBODY,
    FailingSource,
    GatedSource,
    StallingOrigin,
)


class TestReading:
    async def test_what_was_read_once_is_looked_at(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        origin = origin_of(MADE)
        store = await started(nursery, cache, OriginChunks(origin))
        assert store.look([MADE.extent(3)]) is None
        assert await store.read([MADE.extent(3, 10, 2000)]) == MADE.data(3)[10:2000]
        assert store.look([MADE.extent(3)]) == MADE.data(3)
        assert len(origin.requests) == 1
        assert await store.read(MADE.extents()) == plain(MADE)

    async def test_a_reply_in_one_piece_is_a_view_of_the_file(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        store = await started(nursery, cache, chunks_of(SMALL))
        extents = [SMALL.extent(3, 100), SMALL.extent(4), SMALL.extent(5, 0, 50)]
        data = await store.read(extents)
        assert isinstance(data, memoryview)
        assert data == SMALL.data(3)[100:] + SMALL.data(4) + SMALL.data(5)[:50]

    async def test_pieces_and_holes_are_put_together(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        store = await started(nursery, cache, chunks_of(MADE, SMALL))
        hole = Extent(None, None, 0, 5000)
        extents = [hole, MADE.extent(8), SMALL.extent(2, 5, 9), SMALL.extent(0), hole, hole]
        expected = bytes(5000) + MADE.data(8) + SMALL.data(2)[5:9] + SMALL.data(0) + bytes(10_000)
        assert await store.read(extents) == expected
        assert store.look(extents) == expected

    async def test_holes_and_nothing_need_no_blob(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        store = await started(nursery, cache, FailingSource(NOBODY))
        assert store.look([]) == b""
        for size in (1, 4096, 1 << 20, 3 << 20):
            assert store.look([Extent(None, None, 0, size)]) == bytes(size)
            assert await store.read([Extent(None, None, 7, size + 7)]) == bytes(size)

    async def test_chunks_that_are_stored_together_are_read(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        parts = [b"first" * 100, b"second" * 50, b"third" * 1000]
        unit = b"".join(parts)
        chunks, inside = [], 0
        for index, part in enumerate(parts):
            place = index * 8192, len(part), 0, len(unit)
            chunks.append(Chunk(index, Digest.of(part), *place, Codec.NONE, inside, len(unit)))
            inside += len(part)
        blob = Blob("batched", 3 * 8192, len(unit), 3)
        origin = MemoryOrigin({"batched": unit})
        store = await started(nursery, cache, OriginChunks(origin))
        extents = [Extent(blob, chunk, 0, chunk.size) for chunk in chunks]
        assert await store.read(extents) == unit
        assert len(origin.requests) == 1

    async def test_the_cache_is_used_again_by_the_next_daemon(
        self, cache: BlobCache, open_cache: OpenCache, nursery: trio.Nursery
    ) -> None:
        async with trio.open_nursery() as first:
            await read_all(await started(first, cache, chunks_of(MADE)), MADE)
            first.cancel_scope.cancel()
        store = await started(nursery, open_cache(cache.root), FailingSource(NOBODY))
        await store.prepare([MADE.blob])
        assert store.look(MADE.extents()) == plain(MADE)

    async def test_statistics_say_what_came_from_where(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        ledger = Ledger()
        source = Counted(OriginChunks(origin_of(MADE), ledger=ledger), "origin", ledger)
        store = ImageStore(cache, source, owner=OWNER, deadline=30, ledger=ledger)
        await nursery.start(store.run)
        await store.read([MADE.extent(0), MADE.extent(1)])
        await store.read([MADE.extent(1, 0, 100)])
        facts = store.statistics()
        stored = MADE.chunks[1].stored_stop
        assert facts.sources["origin"] == Tally(chunks=2, size=600_000, stored_size=stored)
        assert facts.sources["cache"] == Tally(chunks=1, size=100)
        assert facts.ready_size == 600_000
        assert (facts.waiting_reads, facts.pending_chunks, facts.refused_reads) == (0, 0, 0)
        assert facts.last_error == ""


class TestSingleFlight:
    async def test_fifty_readers_of_one_chunk_are_one_fetch(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        origin = origin_of(MADE)
        store = await started(nursery, cache, OriginChunks(origin))
        read = []

        async def reader() -> None:
            read.append(bytes(await store.read([MADE.extent(5)])))

        async with trio.open_nursery() as readers:
            for _ in range(50):
                readers.start_soon(reader)
        assert read == [MADE.data(5)] * 50
        assert len(origin.requests) == 1

    async def test_a_cancelled_reader_leaves_the_chunk_to_the_others(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        gated = GatedSource(chunks_of(MADE))
        store = await started(nursery, cache, gated)
        results: list[bytes] = []

        async def reader(scope: trio.CancelScope) -> None:
            with scope:
                results.append(bytes(await store.read([MADE.extent(5)])))

        scopes = [trio.CancelScope() for _ in range(3)]
        async with trio.open_nursery() as readers:
            for scope in scopes:
                readers.start_soon(reader, scope)
            await gated.asked.wait()
            scopes[0].cancel()
            await wait_all_tasks_blocked()
            gated.gate.set()
        assert results == [MADE.data(5)] * 2
        assert gated.batches == [[5]]

    async def test_when_all_readers_are_cancelled_the_key_is_free(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        gated = GatedSource(chunks_of(MADE))
        store = await started(nursery, cache, gated)
        with trio.move_on_after(0.1):
            await store.read([MADE.extent(5)])
        gated.gate.set()
        assert await store.read([MADE.extent(5)]) == MADE.data(5)
        assert store.statistics().waiting_reads == 0

    async def test_what_no_reader_waits_for_any_more_is_not_fetched(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        gated = GatedSource(chunks_of(SMALL))
        store = await started(nursery, cache, gated)
        async with trio.open_nursery() as readers:
            for index in range(0, 2 * WORKERS + 10, 2):  # every worker is busy, the rest waits
                readers.start_soon(store.read, [SMALL.extent(index)])
            await wait_all_tasks_blocked(0.05)
            readers.cancel_scope.cancel()
        gated.gate.set()
        await store.read([SMALL.extent(50)])
        assert len(gated.batches) == WORKERS + 1
        assert gated.batches[WORKERS] == [50]

    async def test_two_images_of_one_daemon_fetch_a_shared_chunk_once(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        gated = GatedSource(chunks_of(MADE))
        first = await started(nursery, cache, gated)
        second = await started(nursery, cache, gated, owner=Digest.of(b"second"))
        results: list[bytes] = []

        async def reader(store: ImageStore) -> None:
            results.append(bytes(await store.read([MADE.extent(5)])))

        async with trio.open_nursery() as readers:
            readers.start_soon(reader, first)
            await gated.asked.wait()
            readers.start_soon(reader, second)
            await wait_all_tasks_blocked(0.05)
            gated.gate.set()
        assert results == [MADE.data(5)] * 2
        assert gated.batches == [[5]]

    async def test_an_image_whose_origin_hangs_does_not_hold_up_another(
        self, cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock
    ) -> None:
        stuck = await started(nursery, cache, OriginChunks(StallingOrigin(origin_of(MADE))))
        lively = await started(nursery, cache, chunks_of(MADE), owner=Digest.of(b"second"))
        nursery.start_soon(expect_unreachable, stuck, MADE.extent(5))
        await wait_all_tasks_blocked(0.02)
        assert await lively.read([MADE.extent(4)]) == MADE.data(4)
        assert trio.current_time() == 0
        assert await lively.read([MADE.extent(5)]) == MADE.data(5)
        assert trio.current_time() == 2


class TestAhead:
    async def test_what_is_wanted_is_fetched_without_a_reader(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        origin = origin_of(MADE)
        store = await started(nursery, cache, OriginChunks(origin))
        assert store.want(MADE.blob, MADE.chunks) == 9
        await wait_all_tasks_blocked()
        assert await store.read(MADE.extents()) == plain(MADE)
        assert len(origin.requests) == 1

    async def test_readers_come_first(self, cache: BlobCache, nursery: trio.Nursery) -> None:
        gated = GatedSource(chunks_of(SMALL))
        store = await started(nursery, cache, gated)
        for index in range(0, 40, 2):
            assert store.want(SMALL.blob, [SMALL.chunks[index]]) == 1
        await wait_all_tasks_blocked(0.05)
        assert len(gated.batches) == START
        nursery.start_soon(store.read, [SMALL.extent(63)])
        await wait_all_tasks_blocked(0.05)
        assert gated.batches[START] == [63]
        gated.gate.set()

    async def test_a_reader_of_a_chunk_that_is_wanted_waits_for_the_same_fetch(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        gated = GatedSource(chunks_of(SMALL))
        store = await started(nursery, cache, gated)
        store.want(SMALL.blob, SMALL.chunks[:3])
        await gated.asked.wait()
        async with trio.open_nursery() as readers:
            readers.start_soon(store.read, [SMALL.extent(1)])
            await wait_all_tasks_blocked(0.02)
            gated.gate.set()
        assert gated.batches == [[0, 1, 2]]

    async def test_what_is_wanted_is_bounded_and_can_be_let_go(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        large = make_blob([1 << 20])
        chunk = large.chunks[0]
        many = [replace(chunk, index=index, offset=index << 20) for index in range(200)]
        blob = Blob(large.blob.id, 200 << 20, 1 << 20, 200)
        gated = GatedSource(chunks_of(large))
        store = await started(nursery, cache, gated)
        assert store.want(blob, many) == 64
        assert store.statistics().pending_chunks == 64
        store.forget_ahead()
        assert store.statistics().pending_chunks == 0
        nursery.cancel_scope.cancel()

    async def test_a_failure_ahead_of_readers_is_told_and_tried_again_for_a_reader(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        source = FailingSource(Unreachable("not now"))
        store = await started(nursery, cache, source)
        store.want(MADE.blob, MADE.chunks[:1])
        await source.asked.wait()
        await wait_all_tasks_blocked(0.02)
        assert store.statistics().last_error == "not now"
        with pytest.raises(Unreachable, match="not now"):
            await store.read([MADE.extent(0)])
        assert source.fetches == 2


async def test_ready_marks_follow_the_data(cache: BlobCache, nursery: trio.Nursery) -> None:
    store = await started(nursery, cache, chunks_of(MADE))
    await read_all(store, MADE)
    (file,) = cache.open_files()
    assert file.map.states.tobytes() == bytes([READY]) * 9
