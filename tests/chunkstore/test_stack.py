"""Sources made of sources: what each adds."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from chunkstore import Buffer, Chunk, Corrupt, Missing, Refused, Unreachable
from chunkstore.hugepages import Room
from chunkstore.ledger import Ledger, Pulse, Tally
from chunkstore.memory import MemoryChunks, MemoryOrigin
from chunkstore.originchunks import OriginChunks
from chunkstore.retrying import Retrying
from chunkstore.source import Arrived
from chunkstore.stack import Counted, FirstOf, Limited, Verified
from fixtures.sources import (
    NOBODY,
    CorruptChunks,
    CuttingOrigin,
    FailingSource,
    GatedSource,
    SlowOrigin,
    StallingOrigin,
)
from tests.chunkstore.test_sources import memory
from tests.conformance.chunksource import MADE, fetched

ALL = {index: MADE.data(index) for index in range(7)}


class TestVerified:
    async def test_corrupt_chunks_are_not_delivered(self) -> None:
        got, error = await fetched(Verified(CorruptChunks(memory(), [2, 5])), MADE.chunks)
        assert isinstance(error, Corrupt)
        assert got == {index: MADE.data(index) for index in (0, 1, 3, 4, 6)}

    async def test_a_short_chunk_is_corrupt(self) -> None:
        source = MemoryChunks({MADE.chunks[3].digest: MADE.data(3)[:-1]})
        got, error = await fetched(Verified(source), [MADE.chunks[3]])
        assert isinstance(error, Corrupt)
        assert got == {}


class TestFirstOf:
    async def test_a_later_source_is_asked_only_for_what_is_missing(self) -> None:
        some = MemoryChunks({MADE.chunks[i].digest: MADE.data(i) for i in (0, 2)})
        rest = memory()
        got, error = await fetched(FirstOf(some, rest), MADE.chunks)
        assert (got, error) == (ALL, None)
        assert [chunk.index for chunk in rest.fetched] == [1, 3, 4, 5, 6]

    async def test_a_source_that_is_not_needed_is_not_asked(self) -> None:
        rest = FailingSource(NOBODY)
        got, error = await fetched(FirstOf(memory(), rest), MADE.chunks)
        assert (got, error) == (ALL, None)
        assert rest.fetches == 0

    async def test_a_corrupt_chunk_comes_from_the_next_source(self) -> None:
        liar = Verified(CorruptChunks(memory(), [3]))
        got, error = await fetched(FirstOf(liar, Verified(memory())), MADE.chunks)
        assert (got, error) == (ALL, None)

    async def test_one_that_gave_corrupt_chunks_is_asked_last_for_a_minute(
        self, autojump_clock: MockClock
    ) -> None:
        liar = CorruptChunks(memory(), [3], times=1)
        honest = CorruptChunks(memory(), [])
        source = FirstOf(Verified(liar), Verified(honest))
        for pause, asked in [(0, (1, 1)), (59, (1, 2)), (1, (2, 2)), (0, (3, 2))]:
            await trio.sleep(pause)
            assert await fetched(source, MADE.chunks) == (ALL, None)
            assert (liar.fetches, honest.fetches) == asked

    async def test_when_all_fail_the_last_error_is_raised_with_the_others_behind_it(self) -> None:
        first, second = Unreachable("no route"), Refused("no password")
        source = FirstOf(FailingSource(first), FailingSource(second))
        got, error = await fetched(source, MADE.chunks)
        assert got == {}
        assert (type(error), str(error)) == (Refused, str(second))
        assert error is not None
        assert str(error.__cause__) == str(first)

    async def test_no_sources_have_nothing(self) -> None:
        assert isinstance((await fetched(FirstOf(), MADE.chunks))[1], Missing)

    def test_its_repr_shows_the_stack(self) -> None:
        stack = FirstOf(Verified(Limited(memory(), 2)), OriginChunks(MemoryOrigin({})))
        assert repr(stack) == (
            "FirstOf(Verified(Limited(MemoryChunks(7 chunks), 2)), "
            "OriginChunks(MemoryOrigin(0 blobs)))"
        )


async def test_limited_bounds_the_fetches_under_way() -> None:
    gated = GatedSource(memory())
    source = Limited(gated, 2)
    async with trio.open_nursery() as nursery:
        for chunk in MADE.chunks[:5]:
            nursery.start_soon(fetched, source, [chunk])
        await trio.testing.wait_all_tasks_blocked()
        assert len(gated.batches) == 2
        gated.gate.set()
    assert len(gated.batches) == 5


async def test_counted_writes_what_was_taken_into_the_ledger() -> None:
    ledger = Ledger()
    await fetched(Counted(memory(), "peer", ledger), MADE.chunks[:3], refuse=[1])
    assert ledger.tallies == {"peer": Tally(chunks=2, size=5001)}


class TestRetrying:
    """All in virtual time, with jitter taken out: the longest pause is taken."""

    def retrying(self, origin: CuttingOrigin | StallingOrigin, deadline: float = 30) -> Retrying:
        return Retrying(origin, deadline=deadline, uniform=lambda _low, high: high)

    async def read(self, origin: Retrying, size: int = 300_000) -> list[int]:
        into = bytearray(size)
        counts: list[int] = []
        await origin.read("b", 0, memoryview(into), counts.append)
        assert into == DATA[:size]
        assert counts == sorted(counts)
        return counts

    async def test_a_cut_body_goes_on_from_where_it_broke(self, autojump_clock: MockClock) -> None:
        origin = CuttingOrigin(SOURCE, [(100_000, NOBODY), (70_000, NOBODY)])
        await self.read(self.retrying(origin))
        assert origin.reads == [(0, 300_000, 0), (100_000, 300_000, 0), (170_000, 300_000, 0)]

    async def test_pauses_double_from_a_tenth_of_a_second(self, autojump_clock: MockClock) -> None:
        origin = CuttingOrigin(SOURCE, [(0, NOBODY)] * 5)
        await self.read(self.retrying(origin))
        assert [when for _, _, when in origin.reads] == pytest.approx([0, 0.1, 0.3, 0.7, 1.5, 3.1])

    async def test_little_progress_does_not_make_a_storm(self, autojump_clock: MockClock) -> None:
        origin = CuttingOrigin(SOURCE, [(10, NOBODY)] * 8)
        await self.read(self.retrying(origin))
        assert trio.current_time() == pytest.approx(0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 6.4 + 10)

    async def test_the_pause_that_the_origin_asks_for_is_kept(
        self, autojump_clock: MockClock
    ) -> None:
        origin = CuttingOrigin(SOURCE, [(0, Unreachable("429", retry_after=7))] * 2)
        await self.read(self.retrying(origin))
        assert [when for _, _, when in origin.reads] == [0, 7, 14]

    async def test_a_pause_beyond_the_deadline_is_not_begun(
        self, autojump_clock: MockClock
    ) -> None:
        error = Unreachable("503", retry_after=3600)
        with pytest.raises(Unreachable, match="503"):
            await self.read(self.retrying(CuttingOrigin(SOURCE, [(0, error)])))
        assert trio.current_time() == 0

    async def test_without_progress_the_last_error_is_raised_by_the_deadline(
        self, autojump_clock: MockClock
    ) -> None:
        origin = CuttingOrigin(SOURCE, [(0, NOBODY)] * 1000)
        with pytest.raises(Unreachable, match="nobody answers"):
            await self.read(self.retrying(origin))
        assert 20 <= trio.current_time() <= 30
        assert len(origin.reads) < 12

    async def test_progress_starts_the_deadline_anew(self, autojump_clock: MockClock) -> None:
        slow = Retrying(SlowOrigin(SOURCE, 10_000, 9.0), deadline=30)
        await self.read(slow)
        assert trio.current_time() == 30 * 9.0

    async def test_an_attempt_that_brings_nothing_is_given_up(
        self, autojump_clock: MockClock
    ) -> None:
        origin = StallingOrigin(SOURCE, 100_000, times=1)
        await self.read(self.retrying(origin))
        assert origin.reads == 2
        assert trio.current_time() == 10

    async def test_an_origin_that_says_nothing_fails_by_the_deadline(
        self, autojump_clock: MockClock
    ) -> None:
        with pytest.raises(Unreachable, match="sent nothing for 10 s"):
            await self.read(self.retrying(StallingOrigin(SOURCE)))
        assert 20 < trio.current_time() <= 31

    @pytest.mark.parametrize("error", [Missing("gone"), Refused("no"), Corrupt("odd")])
    async def test_what_would_only_be_said_again_is_raised_at_once(
        self, autojump_clock: MockClock, error: Exception
    ) -> None:
        assert isinstance(error, Missing | Refused | Corrupt)
        origin = CuttingOrigin(SOURCE, [(100_000, error)])
        with pytest.raises(type(error)):
            await self.read(self.retrying(origin))
        assert len(origin.reads) == 1


DATA = bytes(i * 31 % 253 for i in range(300_000))
SOURCE = MemoryOrigin({"b": DATA}, step=10_000)


class TestOriginChunks:
    async def test_adjacent_chunks_are_one_request(self) -> None:
        origin = MemoryOrigin({MADE.blob.id: MADE.stored})
        await fetched(OriginChunks(origin), MADE.chunks)
        assert origin.requests == [(MADE.blob.id, 0, MADE.blob.stored_size)]

    async def test_a_request_is_bounded(self) -> None:
        origin = MemoryOrigin({MADE.blob.id: MADE.stored})
        got, _ = await fetched(OriginChunks(origin, span_size=100_000), MADE.chunks)
        assert got == ALL
        assert len(origin.requests) == 4
        assert sum(stop - start for _, start, stop in origin.requests) == MADE.blob.stored_size

    async def test_chunks_are_delivered_while_the_rest_is_coming(
        self, autojump_clock: MockClock
    ) -> None:
        times: dict[int, float] = {}

        async def deliver(chunk: Chunk, data: Buffer) -> None:
            times[chunk.index] = trio.current_time()

        origin = SlowOrigin(MemoryOrigin({MADE.blob.id: MADE.stored}), 10_000, 1.0)
        await OriginChunks(origin).fetch(MADE.blob, MADE.chunks, deliver)
        assert times == {c.index: -(-c.stored_stop // 10_000) for c in MADE.chunks}

    async def test_what_came_before_a_failure_is_delivered(self) -> None:
        stop = MADE.chunks[3].stored_stop + 10
        origin = CuttingOrigin(MemoryOrigin({MADE.blob.id: MADE.stored}), [(stop, NOBODY)])
        got, error = await fetched(OriginChunks(origin), MADE.chunks)
        assert error is NOBODY
        assert sorted(got) == [0, 1, 2, 3]

    async def test_a_chunk_that_does_not_decode_does_not_stop_the_others(self) -> None:
        stored = bytearray(MADE.stored)
        at = MADE.chunks[4].stored_offset
        stored[at : at + 300] = b"\xff" * 300
        got, error = await fetched(
            Verified(OriginChunks(MemoryOrigin({MADE.blob.id: stored}))), MADE.chunks
        )
        assert isinstance(error, Corrupt)
        assert sorted(got) == [0, 1, 2, 3, 5, 6]

    async def test_requests_side_by_side_are_bounded(self) -> None:
        under_way, most = 0, 0

        class Counting(MemoryOrigin):
            async def read(self, *args: object) -> None:
                nonlocal under_way, most
                under_way += 1
                most = max(most, under_way)
                await trio.testing.wait_all_tasks_blocked()
                await super().read(*args)  # type: ignore[arg-type]
                under_way -= 1

        source = OriginChunks(Counting({MADE.blob.id: MADE.stored}), span_size=1, width=3)
        got, _ = await fetched(source, MADE.chunks)
        assert got == ALL
        assert most == 3

    async def test_memory_that_a_range_was_received_into_is_used_again(self) -> None:
        seen: list[object] = []

        class Noting(MemoryOrigin):
            async def read(
                self, blob_id: str, start: int, into: memoryview, arrived: Arrived
            ) -> None:
                seen.append(into.obj)
                await super().read(blob_id, start, into, arrived)

        source = OriginChunks(Noting({MADE.blob.id: MADE.stored}))
        for _ in range(2):
            await fetched(source, MADE.chunks)
        first, second = seen
        assert isinstance(first, Room)
        assert second is first

    async def test_the_wire_is_counted_and_the_pulse_beats(self, autojump_clock: MockClock) -> None:
        ledger, pulse = Ledger(), Pulse()
        origin = SlowOrigin(MemoryOrigin({MADE.blob.id: MADE.stored}), 1 << 20, 5.0)
        await fetched(OriginChunks(origin, ledger=ledger, pulse=pulse), MADE.chunks)
        assert ledger.tallies["origin"].stored_size == MADE.blob.stored_size
        assert pulse.last == 5
