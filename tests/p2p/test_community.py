"""Hosts and schedulers together, in virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from chunkstore import Unreachable
from chunkstore.chunk import Codec
from fixtures.blobs import make_blob
from fixtures.community import Community, FlippedUpload
from fixtures.sources import FailingSource
from p2p.server import Server, Terms
from p2p.swarm import Swarm

MADE = make_blob([8192] * 24)


@pytest.fixture
def community(tmp_path: Path, nursery: trio.Nursery) -> Community:
    return Community(tmp_path, MADE, nursery)


GONE = FailingSource(Unreachable("the origin is gone"))


async def test_what_a_peer_has_does_not_come_from_the_origin(
    community: Community, clock: MockClock
) -> None:
    await community.schedule()
    await community.join("giver", *range(24))
    taker = await community.join("taker")
    assert await taker.read() == MADE.decoded
    assert (taker.came("peer"), community.origin_reads) == (24, 0)


async def test_what_nobody_has_is_read_from_the_origin_once(
    community: Community, clock: MockClock, nursery: trio.Nursery
) -> None:
    await community.schedule()
    members = [await community.join(name) for name in "abcd"]
    read: list[bytes] = []

    async def take(number: int) -> None:
        read.append(await members[number].read())

    async with trio.open_nursery() as readers:
        for number in range(4):
            readers.start_soon(take, number)
    assert read == [MADE.decoded] * 4
    assert community.origin_reads == len(MADE.stored)


async def test_a_slow_parent_packs_what_shrinks(
    tmp_path: Path, nursery: trio.Nursery, clock: MockClock
) -> None:
    made = make_blob([8192] * 24, codec=Codec.LZ4)
    community = Community(tmp_path, made, nursery)
    await community.schedule()

    def slow(swarm: Swarm) -> None:
        swarm.server = Server(swarm.holdings, Terms(50, 1e6))

    await community.join("giver", *range(24), change=slow)
    taker = await community.join("taker", origin=GONE)
    assert await taker.read() == made.decoded
    peer = taker.ledger.tallies["peer"]
    assert peer.size == 24 * 8192
    assert peer.stored_size < 0.7 * peer.size


async def test_partial_holders_serve_each_other(community: Community, clock: MockClock) -> None:
    await community.schedule()
    one = await community.join("one", *range(12), origin=GONE)
    other = await community.join("other", *range(12, 24), origin=GONE)
    async with trio.open_nursery() as readers:
        readers.start_soon(one.read)
        readers.start_soon(other.read)
    assert (one.came("peer"), other.came("peer")) == (12, 12)


@pytest.mark.logs("corrupt piece")
async def test_a_parent_that_lies_costs_its_place_and_not_the_read(
    community: Community, clock: MockClock
) -> None:
    service = await community.schedule()

    def lie(swarm: Swarm) -> None:
        swarm.server.upload = FlippedUpload

    liar = await community.join("liar", *range(24), change=lie)
    takers = [await community.join(name) for name in ("one", "other")]
    for taker in takers:
        assert await taker.read() == MADE.decoded
    assert takers[0].came("origin") == 24
    aside = service.scheduler.state(trio.current_time())["aside"]
    assert isinstance(aside, list)
    assert [each["host"] for each in aside] == [liar.swarm.id.hex()]


@pytest.mark.logs("corrupt piece")
async def test_with_an_honest_parent_beside_a_liar_the_origin_is_not_needed(
    community: Community, clock: MockClock
) -> None:
    await community.schedule()

    def lie(swarm: Swarm) -> None:
        swarm.server.upload = FlippedUpload

    await community.join("liar", *range(24), change=lie)
    await community.join("honest", *range(24))
    taker = await community.join("taker", origin=GONE)
    assert await taker.read() == MADE.decoded


async def test_a_parent_that_says_it_has_what_it_never_had_delays_and_no_more(
    community: Community, clock: MockClock
) -> None:
    await community.schedule()
    boaster = await community.join("boaster", 0)
    for holding in boaster.swarm.holdings:
        for index in range(1, 24):
            holding.note(index)
    taker = await community.join("taker")
    assert await taker.read() == MADE.decoded
    assert (taker.came("peer"), taker.came("origin")) == (1, 23)


async def test_a_parent_that_dies_in_the_middle_is_replaced(
    community: Community, clock: MockClock
) -> None:
    await community.schedule()
    victim = await community.join("victim", *range(24))
    taker = await community.join("taker")
    assert bytes(await taker.store.read([MADE.extent(0)])) == MADE.data(0)
    victim.scope.cancel()
    community.net.cut(victim.swarm.address)
    assert await taker.read() == MADE.decoded
    assert taker.came("peer") >= 1


@pytest.mark.logs("no session with scheduler")
async def test_without_a_scheduler_the_origin_serves(
    community: Community, clock: MockClock
) -> None:
    alone = await community.join("alone")
    assert await alone.read() == MADE.decoded
    assert alone.came("origin") == 24


@pytest.mark.logs("no session with scheduler")
async def test_downloads_go_on_with_known_parents_when_the_scheduler_is_gone(
    community: Community, clock: MockClock
) -> None:
    await community.schedule()
    await community.join("giver", *range(24))
    taker = await community.join("taker", origin=GONE)
    await taker.store.read([MADE.extent(0)])
    community.end("scheduler:1")
    assert await taker.read() == MADE.decoded
    assert taker.came("peer") == 24


@pytest.mark.logs("no session with scheduler")
async def test_a_scheduler_that_restarts_is_told_everything_again(
    community: Community, clock: MockClock
) -> None:
    await community.schedule()
    await community.join("giver", *range(24))
    await trio.sleep(5)
    community.end("scheduler:1")
    await trio.sleep(5)
    service = await community.schedule()
    await trio.sleep(5)
    (task,) = service.scheduler.tasks.values()
    assert task.counted().bit_count() == 24
    taker = await community.join("taker", origin=GONE)
    assert await taker.read() == MADE.decoded


@pytest.mark.logs("no session with scheduler")
async def test_another_scheduler_takes_over(community: Community, clock: MockClock) -> None:
    both = ("scheduler:1", "scheduler:2")
    for address in both:
        await community.schedule(address)
    await community.join("giver", *range(24), schedulers=both)
    await trio.sleep(1)
    (first,) = [each for each in both if community.services[each].scheduler.tasks]
    community.end(first)
    await trio.sleep(1)
    taker = await community.join("taker", schedulers=both, origin=GONE)
    assert await taker.read() == MADE.decoded
    (other,) = set(both) - {first}
    assert len(community.services[other].scheduler.tasks) == 1


async def test_what_was_evicted_is_withdrawn_and_comes_from_elsewhere(
    community: Community, clock: MockClock
) -> None:
    await community.schedule()
    giver = await community.join("giver", *range(24))
    taker = await community.join("taker")
    await taker.store.read([MADE.extent(0)])
    (holding,) = giver.swarm.holdings
    holding.file.evict(range(1, 24), 1.0)
    await trio.sleep(2)
    assert await taker.read() == MADE.decoded
    assert (taker.came("peer"), taker.came("origin")) == (1, 23)


async def test_an_origin_that_fails_for_good_is_one_error(
    community: Community, clock: MockClock
) -> None:
    await community.schedule()
    alone = await community.join("alone", origin=GONE)
    with pytest.raises(Unreachable):
        await alone.store.read([MADE.extent(0)])


async def test_a_whole_blob_comes_in_the_swarms_own_order(
    community: Community, clock: MockClock
) -> None:
    await community.schedule()
    members = [await community.join(name) for name in "abc"]

    async def take(number: int) -> None:
        member = members[number]
        store, source = member.store, member.store.source

        async def put(chunk: object, data: object) -> None:
            await store.put(MADE.blob, chunk, data)  # type: ignore[arg-type]

        assert await source.take_all(MADE.blob, MADE.chunks, put, 5.0)  # type: ignore[attr-defined]

    async with trio.open_nursery() as takers:
        for number in range(3):
            takers.start_soon(take, number)
    assert community.origin_reads == len(MADE.stored)
    assert [await member.read() for member in members] == [MADE.decoded] * 3
