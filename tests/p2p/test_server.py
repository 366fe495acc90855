from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from chunkstore import Chunk, Digest
from chunkstore.blobcache import BlobCache
from chunkstore.readymap import CLAIMED
from fixtures.blobs import MadeBlob, make_blob
from fixtures.swarmnet import Parent, shelf, spoil
from p2p import messages, wire
from p2p.packing import unpack
from p2p.server import OPEN_REQUESTS, PATIENCE, Terms
from p2p.session import Session
from p2p.task import blob_task
from p2p.wire import Kind, Priority, Request

MADE = make_blob([8192] * 8)
LARGE = make_blob([1 << 20] * 12, seed=1)


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    made = Parent(tmp_path / "cache")
    yield made
    made.cache.close()


def follow(session: Session, made: MadeBlob = MADE, handle: int = 0) -> None:
    session.tell(messages.Follow(handle, blob_task(made.blob.id)))


def ask(
    session: Session,
    number: int,
    chunk: Chunk,
    *,
    priority: Priority = Priority.READER,
    lz4: bool = False,
) -> None:
    request = Request(0, chunk, chunk.index, priority, lz4, chunk.size, chunk.offset)
    session.post(request.encode(number))


def flipped(digest: Digest) -> Digest:
    return Digest(digest.algorithm, bytes([digest.raw[0] ^ 1]) + digest.raw[1:])


async def test_a_child_hears_what_is_here_and_gets_it(parent: Parent, clock: MockClock) -> None:
    parent.put(MADE, 1, 2, 5)
    await parent.open(MADE)
    async with parent.child() as (session, listener):
        follow(session)
        ask(session, 1, MADE.chunks[2])
        await listener.until(lambda: listener.pieces and listener.bodies(Kind.HAVE))
    assert listener.bodies(Kind.HAVE) == [messages.Have(0, True, [1, 3, 5, 6])]
    assert listener.pieces == {1: MADE.data(2)}


async def test_a_child_of_a_task_that_nobody_has_hears_so_and_later_that_it_is_there(
    parent: Parent, clock: MockClock
) -> None:
    async with parent.child() as (session, listener):
        follow(session)
        await listener.until(lambda: listener.bodies(Kind.HAVE))
        parent.put(MADE, 3)
        await parent.open(MADE)
        await listener.until(lambda: len(listener.bodies(Kind.HAVE)) == 2)
    assert listener.bodies(Kind.HAVE) == [
        messages.Have(0, True, []),
        messages.Have(0, False, [3, 4]),
    ]


async def test_a_quiet_child_is_told_nothing_and_gets_what_it_asks_for(
    parent: Parent, clock: MockClock
) -> None:
    parent.put(MADE, 1)
    await parent.open(MADE)
    holding = parent.holdings.find(blob_task(MADE.blob.id))
    assert holding is not None
    async with parent.child() as (session, listener):
        session.tell(messages.Follow(0, blob_task(MADE.blob.id), quiet=True))
        await wait_all_tasks_blocked()
        parent.put(MADE, 2)
        holding.refresh()
        ask(session, 1, MADE.chunks[2])
        await listener.until(lambda: listener.pieces)
        session.tell(messages.Unfollow(0))
        follow(session, handle=1)
        await listener.until(lambda: listener.bodies(Kind.HAVE))
    assert listener.bodies(Kind.HAVE) == [messages.Have(1, True, [1, 3])]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda chunk: replace(chunk, digest=flipped(chunk.digest)),
        lambda chunk: replace(chunk, size=chunk.size - 1),
        lambda chunk: replace(chunk, offset=chunk.offset + 4096),
        lambda chunk: replace(chunk, index=chunk.index + 1),
        lambda chunk: replace(chunk, index=4000),
    ],
)
async def test_a_chunk_leaves_only_to_who_knows_digest_place_and_size(
    wrong: object, parent: Parent, clock: MockClock
) -> None:
    parent.put(MADE)
    await parent.open(MADE)
    assert callable(wrong)
    async with parent.child() as (session, listener):
        follow(session)
        ask(session, 1, wrong(MADE.chunks[2]))
        await listener.until(lambda: listener.requests(Kind.ABSENT))
    assert listener.pieces == {}


async def test_what_comes_and_goes_is_told_in_one_message(parent: Parent, clock: MockClock) -> None:
    parent.put(MADE, 0)
    await parent.open(MADE)
    holding = parent.holdings.find(blob_task(MADE.blob.id))
    assert holding is not None
    async with parent.child() as (session, listener):
        follow(session)
        await listener.until(lambda: listener.bodies(Kind.HAVE))
        await trio.sleep(1)
        parent.put(MADE, 1, 2, 3)
        holding.file.map.states[0] = CLAIMED
        holding.refresh()
        parent.put(MADE, 7)
        holding.note(7)
        await trio.sleep(1)
    adds = [body for body in listener.bodies(Kind.HAVE) if isinstance(body, messages.Have)]
    assert [(body.add, body.drop) for body in adds[1:]] in (
        [([1, 4, 7, 8], []), ([], [0, 1])],
        [([1, 4], []), ([], [0, 1]), ([7, 8], [])],
    )


async def test_what_another_process_puts_into_the_cache_is_told(
    parent: Parent, clock: MockClock, nursery: trio.Nursery
) -> None:
    await parent.open(MADE)
    nursery.start_soon(parent.holdings.run)
    async with parent.child() as (session, listener):
        follow(session)
        await listener.until(lambda: listener.bodies(Kind.HAVE))
        other = BlobCache(parent.cache.root)
        with shelf(other, MADE) as kept:
            kept.put(MADE.chunks[6], MADE.data(6))
        other.close()
        await listener.until(lambda: len(listener.bodies(Kind.HAVE)) == 2)
    assert listener.bodies(Kind.HAVE)[1] == messages.Have(0, False, [6, 7])
    nursery.cancel_scope.cancel()


async def test_readers_go_before_bulk_whoever_came_first(parent: Parent, clock: MockClock) -> None:
    parent.put(LARGE)
    await parent.open(LARGE)
    order: list[int] = []
    async with parent.child() as (session, listener):
        follow(session, LARGE)
        await listener.until(lambda: listener.bodies(Kind.HAVE))
        listener.pieces = Noting(order)
        for number in range(1, 6):
            ask(session, number, LARGE.chunks[number], priority=Priority.BULK)
        ask(session, 6, LARGE.chunks[6], priority=Priority.READER)
        await listener.until(lambda: len(order) == 6)
    assert order.index(6) < 2


class Noting(dict[int, bytes]):
    """Remembers in which order pieces came."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self._order = order

    def __setitem__(self, number: int, data: bytes) -> None:
        self._order.append(number)
        super().__setitem__(number, data)


async def test_a_request_that_is_taken_back_is_not_answered(
    parent: Parent, clock: MockClock
) -> None:
    parent.put(LARGE)
    await parent.open(LARGE)
    async with parent.child() as (session, listener):
        follow(session, LARGE)
        for number in range(1, 10):
            ask(session, number, LARGE.chunks[number])
        session.post(wire.bare(Kind.CANCEL, 9))
        session.post(wire.bare(Kind.CANCEL, 77))
        await listener.until(lambda: len(listener.pieces) == 8)
        await trio.sleep(1)
    assert 9 not in listener.pieces


async def test_who_asks_for_too_much_at_once_hears_busy(parent: Parent, clock: MockClock) -> None:
    parent.put(MADE)
    await parent.open(MADE)
    async with parent.child() as (session, listener):
        follow(session)
        for number in range(1, OPEN_REQUESTS + 11):
            ask(session, number, MADE.chunks[number % 8])
        await listener.until(
            lambda: len(listener.pieces) + len(listener.requests(Kind.BUSY)) == OPEN_REQUESTS + 10
        )
    assert len(listener.requests(Kind.BUSY)) == 10


async def test_never_more_uploads_at_once_than_there_are_slots(
    tmp_path: Path, clock: MockClock
) -> None:
    parent = Parent(tmp_path / "cache", Terms(slots=2))
    parent.put(LARGE)
    await parent.open(LARGE)

    async def take_all(name: bytes) -> None:
        async with parent.child(name) as (session, listener):
            follow(session, LARGE)
            for number, chunk in enumerate(LARGE.chunks, 1):
                ask(session, number, chunk)
            await listener.until(lambda: len(listener.pieces) == 12)
            assert all(data == LARGE.data(n - 1) for n, data in listener.pieces.items())

    async with trio.open_nursery() as nursery:
        for child in range(10):
            nursery.start_soon(take_all, b"child%d" % child)
    assert (parent.server.slots.most, parent.server.slots.used) == (2, 0)
    assert parent.server.tally.pieces == 120
    parent.cache.close()


async def test_without_a_free_slot_a_child_hears_busy_after_a_while(
    tmp_path: Path, clock: MockClock
) -> None:
    parent = Parent(tmp_path / "cache", Terms(slots=1))
    parent.put(MADE)
    await parent.open(MADE)
    async with parent.child() as (session, listener):
        follow(session)
        await listener.until(lambda: listener.bodies(Kind.HAVE))
        async with parent.server.slots.turn(0, 1):
            since = trio.current_time()
            ask(session, 1, MADE.chunks[0])
            await listener.until(lambda: listener.requests(Kind.BUSY))
            assert trio.current_time() - since == pytest.approx(PATIENCE, abs=0.1)
        ask(session, 2, MADE.chunks[0])
        await listener.until(lambda: listener.pieces)
    parent.cache.close()


async def test_a_waiting_child_that_leaves_gives_its_turn_to_the_next(
    tmp_path: Path, clock: MockClock
) -> None:
    parent = Parent(tmp_path / "cache", Terms(slots=1))
    parent.put(MADE)
    await parent.open(MADE)
    async with AsyncExitStack() as stack:
        session, listener = await stack.enter_async_context(parent.child(b"stays"))
        follow(session)
        async with parent.server.slots.turn(0, 1):
            async with parent.child(b"leaves") as (leaving, heard):
                follow(leaving)
                ask(leaving, 1, MADE.chunks[0])
                await heard.until(lambda: heard.bodies(Kind.HAVE))
                await wait_all_tasks_blocked()
            ask(session, 1, MADE.chunks[1])
            await wait_all_tasks_blocked()
        await listener.until(lambda: listener.pieces)
    assert parent.server.slots.used == 0
    parent.cache.close()


@pytest.mark.logs("bad chunk dropped")
async def test_a_complaint_about_a_bad_chunk_has_it_dropped(
    parent: Parent, clock: MockClock
) -> None:
    parent.put(MADE)
    await parent.open(MADE)
    spoil(parent.cache, MADE, MADE.chunks[3], b"rotten")
    async with parent.child() as (session, listener):
        follow(session)
        ask(session, 1, MADE.chunks[3])
        await listener.until(lambda: listener.pieces)
        assert not MADE.chunks[3].digest.matches(listener.pieces[1])
        session.tell(messages.Complaint(0, 3))
        await listener.until(lambda: len(listener.bodies(Kind.HAVE)) == 2)
        assert listener.bodies(Kind.HAVE)[1] == messages.Have(0, False, [], [3, 4])
        ask(session, 2, MADE.chunks[3])
        await listener.until(lambda: listener.requests(Kind.ABSENT))


async def test_a_complaint_about_a_good_chunk_changes_nothing(
    parent: Parent, clock: MockClock
) -> None:
    parent.put(MADE)
    await parent.open(MADE)
    async with parent.child() as (session, listener):
        follow(session)
        session.tell(messages.Complaint(0, 3))
        await listener.until(lambda: listener.bodies(Kind.HAVE))
        await trio.sleep(1)
        ask(session, 1, MADE.chunks[3])
        await listener.until(lambda: listener.pieces)
    assert len(listener.bodies(Kind.HAVE)) == 1


async def test_a_piece_is_packed_where_the_child_likes_it_and_it_saves(
    parent: Parent, clock: MockClock
) -> None:
    packable = make_blob([100_000], seed=2)
    for made in (packable, LARGE):
        parent.put(made, 0)
        await parent.open(made)
    async with parent.child() as (session, listener):
        follow(session, packable)
        ask(session, 1, packable.chunks[0], lz4=True)
        await listener.until(lambda: 1 in listener.pieces)
        packed = listener.pieces[1]
    assert len(packed) < 90_000
    assert unpack(packed, 100_000) == packable.data(0)
    async with parent.child() as (session, listener):
        follow(session, LARGE)
        ask(session, 2, LARGE.chunks[0], lz4=True)
        await listener.until(lambda: 2 in listener.pieces)
        assert listener.pieces[2] == LARGE.data(0)


@pytest.mark.parametrize(
    "frame",
    [
        wire.frame(messages.Held(0, [])),
        wire.frame(messages.Have(0, True, [])),
        Request(9, MADE.chunks[0], 0, Priority.READER).encode(1),
        wire.bare(Kind.STATUS),
        wire.piece_header(1, 1) + b"x",
    ],
)
async def test_what_a_child_may_not_say_ends_the_session(
    frame: bytes, parent: Parent, clock: MockClock
) -> None:
    async with parent.child() as (session, _):
        session.post(frame)
        with trio.fail_after(5):
            await session.ended.wait()
        assert "goodbye: nonsense" in session.reason


async def test_a_host_has_a_bounded_number_of_sessions(parent: Parent, clock: MockClock) -> None:
    async with AsyncExitStack() as stack:
        children = [await stack.enter_async_context(parent.child()) for _ in range(9)]
        await trio.sleep(1)
        assert [session.ended.is_set() for session, _ in children] == [False] * 8 + [True]
