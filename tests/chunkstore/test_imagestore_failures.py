"""The image store where sources fail, stall and lie, and where too many wait."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from chunkstore import (
    Blob,
    Buffer,
    Chunk,
    Corrupt,
    Deliver,
    Digest,
    Missing,
    Refused,
    Unreachable,
)
from chunkstore.blobcache import BlobCache
from chunkstore.imagestore import WAITING_READS
from chunkstore.ledger import Pulse
from chunkstore.originchunks import OriginChunks
from chunkstore.retrying import Retrying
from chunkstore.stack import FirstOf
from fixtures.imagestores import (
    MADE,
    SMALL,
    chunks_of,
    expect_unreachable,
    origin_of,
    plain,
    read_all,
    started,
)
from fixtures.sources import (
    NOBODY,
    CorruptChunks,
    FailingSource,
    GatedSource,
    SlowOrigin,
    StallingOrigin,
)


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
