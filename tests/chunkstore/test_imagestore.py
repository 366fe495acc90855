"""The image store: reads through cache and sources, whatever these do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from chunkstore import (
    Blob,
    Buffer,
    Chunk,
    ChunkSource,
    Codec,
    Corrupt,
    Deliver,
    Digest,
    Extent,
    Missing,
    Refused,
    Unreachable,
)
from chunkstore.blobcache import BlobCache
from chunkstore.eviction import usage
from chunkstore.fetcher import WORKERS
from chunkstore.imagestore import WAITING_READS, ImageStore
from chunkstore.ledger import Ledger, Pulse, Tally
from chunkstore.memory import MemoryOrigin
from chunkstore.originchunks import OriginChunks
from chunkstore.readymap import READY
from chunkstore.retrying import Retrying
from chunkstore.stack import Counted, FirstOf
from chunkstore.views import LENT
from chunkstore.width import START
from fixtures.blobs import MadeBlob, make_blob
from fixtures.sources import (
    NOBODY,
    CorruptChunks,
    FailingSource,
    GatedSource,
    SlowOrigin,
    StallingOrigin,
)

MADE = make_blob([300_000] * 8 + [17], codec=Codec.LZ4)
SMALL = make_blob([8192] * 64)
OWNER = Digest.of(b"image")


def origin_of(*made: MadeBlob) -> MemoryOrigin:
    return MemoryOrigin({each.blob.id: each.stored for each in made})


def chunks_of(*made: MadeBlob) -> OriginChunks:
    return OriginChunks(origin_of(*made))


OpenCache = Callable[..., BlobCache]


@pytest.fixture
def open_cache() -> Iterator[OpenCache]:
    """Return what opens caches that stay open until the test's stores have ended."""
    with ExitStack() as stack:

        def opened(root: Path, **settings: Any) -> BlobCache:
            return stack.enter_context(closing(BlobCache(root, **settings)))

        yield opened


@pytest.fixture
def cache(tmp_path: Path, open_cache: OpenCache) -> BlobCache:
    return open_cache(tmp_path / "cache")


async def started(
    nursery: trio.Nursery,
    cache: BlobCache,
    source: ChunkSource,
    *,
    owner: Digest = OWNER,
    pulse: Pulse | None = None,
) -> ImageStore:
    store = ImageStore(cache, source, owner=owner, deadline=30, pulse=pulse)
    await nursery.start(store.run)
    return store


async def read_all(store: ImageStore, made: MadeBlob) -> bytes:
    return b"".join([bytes(await store.read([extent])) for extent in made.extents()])


def plain(made: MadeBlob) -> bytes:
    return b"".join(made.data(chunk.index) for chunk in made.chunks)


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


async def expect_unreachable(store: ImageStore, extent: Extent) -> None:
    with pytest.raises(Unreachable):
        await store.read([extent])


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


class TestFailures:
    async def test_a_corrupt_source_costs_the_source_not_the_reader(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        liar = CorruptChunks(chunks_of(MADE), [3, 5])
        store = await started(nursery, cache, FirstOf(liar, chunks_of(MADE)))
        assert await read_all(store, MADE) == plain(MADE)
        assert store.statistics().last_error == ""

    async def test_a_chunk_spoilt_on_its_way_is_fetched_again(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        source = CorruptChunks(chunks_of(MADE), [3], times=1)
        store = await started(nursery, cache, source)
        assert await store.read([MADE.extent(3)]) == MADE.data(3)
        assert source.fetches == 2

    async def test_a_chunk_corrupt_everywhere_is_one_error_and_its_neighbours_are_fine(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        store = await started(nursery, cache, CorruptChunks(chunks_of(MADE), [3]))
        store.want(MADE.blob, MADE.chunks)
        for index in (0, 1, 2, 4, 5, 6, 7, 8):
            assert await store.read([MADE.extent(index)]) == MADE.data(index)
        with pytest.raises(Corrupt, match="chunk 3 does not match blake3"):
            await store.read([MADE.extent(2), MADE.extent(3)])
        assert "chunk 3" in str(store.statistics().last_error)
        assert store.look([MADE.extent(3)]) is None

    @pytest.mark.parametrize("error", [Missing("no such blob"), Refused("no password"), NOBODY])
    async def test_when_every_source_fails_the_reader_learns_why(
        self, cache: BlobCache, nursery: trio.Nursery, error: Missing | Refused | Unreachable
    ) -> None:
        source = FirstOf(FailingSource(Unreachable("no peer")), FailingSource(error))
        store = await started(nursery, cache, source)
        with pytest.raises(type(error), match=f"^{error}$"):
            await store.read([MADE.extent(3)])
        assert store.statistics().last_error == str(error)
        assert store.statistics().last_error_at > 0
        assert store.statistics().refused_reads == 1
        assert store.statistics().waiting_reads == 0

    async def test_nothing_for_the_deadline_is_an_error_with_a_reason(
        self, cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock
    ) -> None:
        origin = Retrying(StallingOrigin(origin_of(MADE)), deadline=30)
        store = await started(nursery, cache, OriginChunks(origin))
        with pytest.raises(Unreachable, match=r"nothing for 10 s|no bytes came for 30 s"):
            await store.read([MADE.extent(3)])
        assert 20 < trio.current_time() <= 30

    async def test_who_asks_again_at_once_does_not_wait_again(
        self, cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock
    ) -> None:
        store = await started(nursery, cache, GatedSource(chunks_of(MADE)))
        with pytest.raises(Unreachable, match="no bytes came for 30 s"):
            await store.read([MADE.extent(2), MADE.extent(3)])
        with pytest.raises(Unreachable, match="no bytes came for 30 s"):
            await store.read([MADE.extent(3, 0, 10)])
        assert trio.current_time() == 30
        await trio.sleep(2)
        with pytest.raises(Unreachable, match="no bytes came for 3 s"):
            await store.read([MADE.extent(3, 0, 10)])
        assert trio.current_time() == 35, "a new try, but not for as long"
        await trio.sleep(31)
        with pytest.raises(Unreachable, match="no bytes came for 30 s"):
            await store.read([MADE.extent(3, 0, 10)])
        assert trio.current_time() == 96

    async def test_a_source_that_never_ends_holds_neither_reader_nor_worker(
        self, cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock
    ) -> None:
        gated = GatedSource(chunks_of(MADE))
        store = await started(nursery, cache, gated)
        with pytest.raises(Unreachable, match="no bytes came for 30 s"):
            await store.read([MADE.extent(3)])
        assert trio.current_time() == 30
        await trio.sleep(31)
        gated.gate.set()
        assert await store.read([MADE.extent(3)]) == MADE.data(3)
        assert gated.batches == [[3], [3]]

    async def test_slow_is_not_late_while_bytes_come(
        self, cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock
    ) -> None:
        pulse = Pulse()
        slow = SlowOrigin(origin_of(MADE), 60_000, 20.0)
        store = await started(nursery, cache, OriginChunks(slow, pulse=pulse), pulse=pulse)
        await store.prepare([MADE.blob])  # a thread, during which the clock may jump
        began = trio.current_time()
        assert await store.read([MADE.extent(3)]) == MADE.data(3)
        assert trio.current_time() >= began + 60

    async def test_a_reader_that_came_late_to_a_failing_fetch_has_its_own_try(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        class FailsOnce(GatedSource):
            async def fetch(self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver) -> None:
                await super().fetch(blob, chunks if len(self.batches) else (), deliver)
                if len(self.batches) == 1:
                    raise Unreachable("only once")

        source = FailsOnce(chunks_of(MADE))
        store = await started(nursery, cache, source)
        store.want(MADE.blob, MADE.chunks[3:4])
        await source.asked.wait()
        results: list[Buffer] = []

        async def reader() -> None:
            results.append(bytes(await store.read([MADE.extent(3)])))

        async with trio.open_nursery() as readers:
            readers.start_soon(reader)
            await wait_all_tasks_blocked(0.02)
            source.gate.set()
        assert results == [MADE.data(3)]

    async def test_reads_that_wait_when_the_image_is_closed_end(self, cache: BlobCache) -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
            store = await started(nursery, cache, GatedSource(chunks_of(MADE)))
            outer.start_soon(expect_unreachable, store, MADE.extent(3))
            await wait_all_tasks_blocked(0.02)
            nursery.cancel_scope.cancel()
        with pytest.raises(Unreachable, match="not being served"):
            await store.read([MADE.extent(3)])


class TestBound:
    """One dead origin never takes all the requests that a filesystem has."""

    async def test_past_the_bound_reads_of_a_stalled_image_fail_at_once(
        self, cache: BlobCache, nursery: trio.Nursery, mock_clock: MockClock
    ) -> None:
        dead = await started(nursery, cache, OriginChunks(StallingOrigin(origin_of(SMALL))))
        other = await started(nursery, cache, chunks_of(MADE), owner=Digest.of(b"second"))
        for number in range(WAITING_READS):
            nursery.start_soon(expect_unreachable, dead, SMALL.extent(number % 64))
        await wait_all_tasks_blocked()
        mock_clock.jump(5)  # by hand: the cache's threads take their time meanwhile
        with pytest.raises(Unreachable, match="256 reads wait already"):
            await dead.read([SMALL.extent(1)])
        assert trio.current_time() == 5
        assert dead.statistics().waiting_reads == WAITING_READS
        assert dead.statistics().refused_reads == 1
        assert await other.read([MADE.extent(3)]) == MADE.data(3)
        mock_clock.jump(30)
        await wait_all_tasks_blocked()
        assert dead.statistics().waiting_reads == 0

    async def test_a_moving_image_may_have_more_waiting_reads(
        self, cache: BlobCache, nursery: trio.Nursery
    ) -> None:
        store = await started(nursery, cache, chunks_of(SMALL))
        async with trio.open_nursery() as readers:
            for number in range(3 * WAITING_READS):
                readers.start_soon(store.read, [SMALL.extent(number % 64)])
        assert store.statistics().refused_reads == 0


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


async def read_right(store: ImageStore, made: MadeBlob) -> None:
    assert await read_all(store, made) == plain(made)


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


async def test_ready_marks_follow_the_data(cache: BlobCache, nursery: trio.Nursery) -> None:
    store = await started(nursery, cache, chunks_of(MADE))
    await read_all(store, MADE)
    (file,) = cache.open_files()
    assert file.map.states.tobytes() == bytes([READY]) * 9
