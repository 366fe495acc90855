"""What to fetch next, and in which ranges."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chunkstore import Buffer, Chunk, Codec, Corrupt
from chunkstore.memory import MemoryOrigin
from chunkstore.originchunks import OriginChunks
from chunkstore.spans import GAP, spans
from chunkstore.wanted import Key, Wanted, key_of
from fixtures.blobs import make_blob

MADE = make_blob([4096] * 12)
BLOB, CHUNKS = MADE.blob, MADE.chunks


BATCH = 3 * 4096


def wanted(ahead_size: int = 8 * 4096) -> Wanted:
    return Wanted(ahead_size=ahead_size)


def taken(queue: Wanted, size: int = BATCH, *, demanded_only: bool = False) -> list[int]:
    batch = queue.take(size, demanded_only=demanded_only)
    return [] if batch is None else [chunk.index for chunk in batch[1]]


def test_what_readers_wait_for_comes_before_what_is_wanted_ahead() -> None:
    queue = wanted()
    for index in (0, 1, 2, 3):
        assert queue.want(BLOB, CHUNKS[index])
    assert queue.demand(BLOB, CHUNKS[9])
    assert queue.demand(BLOB, CHUNKS[7])
    assert [taken(queue) for _ in range(5)] == [[9], [7], [0, 1, 2], [3], []]


def test_a_demand_takes_wanted_neighbours_along() -> None:
    queue = wanted()
    for index in (2, 3, 4, 5, 6):
        assert queue.want(BLOB, CHUNKS[index])
    assert queue.demand(BLOB, CHUNKS[3])
    assert [taken(queue) for _ in range(3)] == [[3, 4, 5], [2], [6]]


def test_a_worker_for_readers_leaves_the_rest() -> None:
    queue = wanted()
    assert queue.want(BLOB, CHUNKS[0])
    assert taken(queue, demanded_only=True) == []
    assert queue.demand(BLOB, CHUNKS[0])
    assert taken(queue, demanded_only=True) == [0]


def test_what_is_in_flight_is_not_taken_again() -> None:
    queue = wanted()
    assert queue.demand(BLOB, CHUNKS[0])
    assert taken(queue) == [0]
    assert not queue.demand(BLOB, CHUNKS[0])
    assert queue.want(BLOB, CHUNKS[0])
    assert taken(queue) == []
    queue.landed(key_of(BLOB, CHUNKS[0]))
    assert queue.demand(BLOB, CHUNKS[0])
    assert taken(queue) == [0]


def test_what_is_wanted_ahead_is_bounded_and_taking_makes_room() -> None:
    queue = wanted()
    assert [queue.want(BLOB, chunk) for chunk in CHUNKS] == [True] * 8 + [False] * 4
    assert taken(queue) == [0, 1, 2]
    assert [queue.want(BLOB, chunk) for chunk in CHUNKS[8:]] == [True] * 3 + [False]
    queue.clear_ahead()
    assert queue.pending == 0
    assert [queue.want(BLOB, chunk) for chunk in CHUNKS] == [True] * 11 + [False]


def test_what_nobody_waits_for_any_more_is_not_taken() -> None:
    queue = wanted()
    assert queue.demand(BLOB, CHUNKS[0])
    queue.withdraw(key_of(BLOB, CHUNKS[0]))
    assert taken(queue) == []


def test_a_chunk_larger_than_a_batch_goes_alone() -> None:
    queue = wanted()
    for index in (0, 1):
        assert queue.demand(BLOB, CHUNKS[index])
    assert [taken(queue, 100), taken(queue, 100)] == [[0], [1]]


class Queue(RuleBasedStateMachine):
    """No chunk is in flight twice, none demanded is lost, and bounds hold."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = wanted()
        self.demanded: set[Key] = set()
        self.flying: list[Key] = []

    @rule(index=st.integers(0, 11))
    def demand(self, index: int) -> None:
        key = key_of(BLOB, CHUNKS[index])
        assert self.queue.demand(BLOB, CHUNKS[index]) == (key not in self.flying)
        if key not in self.flying:
            self.demanded.add(key)

    @rule(index=st.integers(0, 11))
    def want(self, index: int) -> None:
        self.queue.want(BLOB, CHUNKS[index])

    @rule(index=st.integers(0, 11))
    def withdraw(self, index: int) -> None:
        key = key_of(BLOB, CHUNKS[index])
        self.queue.withdraw(key)
        self.demanded.discard(key)

    @rule(demanded_only=st.booleans())
    def take(self, demanded_only: bool) -> None:
        batch = self.queue.take(BATCH, demanded_only=demanded_only)
        assert (batch is not None) or not self.demanded
        if batch is None:
            return
        keys = [key_of(BLOB, chunk) for chunk in batch[1]]
        assert not set(keys) & set(self.flying)
        assert not self.demanded or keys[0] in self.demanded
        assert sum(chunk.stored_size for chunk in batch[1]) <= 3 * 4096
        assert [chunk.index for chunk in batch[1]] == list(
            range(batch[1][0].index, batch[1][0].index + len(keys))
        )
        self.flying += keys
        self.demanded -= set(keys)

    @rule(data=st.data())
    def land(self, data: st.DataObject) -> None:
        if self.flying:
            key = data.draw(st.sampled_from(self.flying))
            self.flying.remove(key)
            self.queue.landed(key)

    @rule()
    def clear(self) -> None:
        self.queue.clear_ahead()

    @invariant()
    def demands_are_pending(self) -> None:
        assert self.queue.pending >= len(self.demanded)


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@given(
    st.lists(st.tuples(st.integers(0, 3 * GAP), st.integers(1, 50_000)), min_size=1, max_size=30),
    st.data(),
)
def test_spans_cover_each_chunk_within_bounds(
    layout: list[tuple[int, int]], data: st.DataObject
) -> None:
    chunks, at = [], 0
    for index, (gap, size) in enumerate(layout):
        at += gap
        chunks.append(Chunk(index, CHUNKS[0].digest, index << 20, size, at, size, Codec.NONE))
        at += size
    asked = data.draw(st.permutations(chunks))
    found = spans(asked, 100_000)
    covered = [unit for span in found for unit in span.units]
    assert [unit.chunks[0] for unit in covered] == chunks
    for span in found:
        assert span.stop - span.start <= 100_000
        assert all(span.start <= unit.start < unit.stop <= span.stop for unit in span.units)
    wasted = sum(span.stop - span.start for span in found) - sum(size for _, size in layout)
    assert wasted <= GAP * (len(chunks) - len(found))


def test_chunks_of_one_unit_are_decoded_once() -> None:
    unit = [
        Chunk(i, CHUNKS[0].digest, i * 4096, 10, 500, 40, Codec.ZSTD, i * 10, 100) for i in range(4)
    ]
    (span,) = spans(unit, 1)
    assert [len(each.chunks) for each in span.units] == [4]
    assert (span.start, span.stop) == (500, 540)


def test_units_that_overlap_are_in_one_span_or_two_but_whole() -> None:
    first = replace(CHUNKS[0], stored_offset=0, stored_size=10_000)
    second = replace(CHUNKS[1], stored_offset=5_000, stored_size=1_000)
    for span in spans([second, first], 20_000):
        assert all(span.start <= unit.start < unit.stop <= span.stop for unit in span.units)


@pytest.mark.parametrize(
    "odd", [{"stored_size": 0}, {"stored_size": 1 << 30}, {"size": 0}, {"unit_size": 1 << 30}]
)
async def test_a_place_that_no_blob_has_is_corrupt_and_its_neighbours_come(
    odd: dict[str, int],
) -> None:
    got = []

    async def deliver(chunk: Chunk, _data: Buffer) -> None:
        await trio.lowlevel.checkpoint()
        got.append(chunk.index)

    source = OriginChunks(MemoryOrigin({BLOB.id: MADE.stored}))
    strange = replace(CHUNKS[1], **odd)  # type: ignore[arg-type]
    with pytest.raises(Corrupt, match="chunk 1"):
        await source.fetch(BLOB, [CHUNKS[0], strange, CHUNKS[2]], deliver)
    assert sorted(got) == [0, 2]
