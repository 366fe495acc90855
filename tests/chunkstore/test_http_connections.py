"""Connections that die, stall, grow old, or are too many, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from chunkstore import Unreachable
from chunkstore.http import Client
from chunkstore.origins.http import HttpOrigin
from fixtures.faulty import (
    Cut,
    Drip,
    Fault,
    FaultyServer,
    Proper,
    Raw,
    Stall,
)
from fixtures.faultysite import BLOB, GOOD, PATIENCE, SIZE, START, Site
from fixtures.memorynet import MemoryNet


@pytest.fixture
async def site(nursery: trio.Nursery) -> AsyncIterator[Site]:
    found = Site(nursery)
    with found.client:
        yield found


async def test_a_kept_connection_that_died_is_replaced_without_a_word(site: Site) -> None:
    await site.read()
    assert await site.read(Raw(b""), Proper()) == GOOD
    assert len(site.net.dialled) == 2


async def test_a_new_connection_that_dies_is_not_tried_twice(site: Site) -> None:
    with pytest.raises(Unreachable, match="hung up"):
        await site.read(Raw(b""), Raw(b""), Raw(b""))
    assert len(site.net.dialled) == 1


async def test_a_kept_connection_that_dies_in_the_middle_is_an_error(
    autojump_clock: trio.testing.MockClock, site: Site
) -> None:
    await site.read()
    with pytest.raises(Unreachable, match="cut off"):
        await site.read(Cut(after=10))
    assert len(site.net.dialled) == 1


async def test_old_connections_are_not_used_again(
    autojump_clock: trio.testing.MockClock, site: Site
) -> None:
    await site.read()
    await trio.sleep(61)
    await site.read()
    assert len(site.net.dialled) == 2


@pytest.mark.parametrize("fault", [Stall(), Stall(after=10), Drip(size=1, every=1)])
async def test_a_cancelled_read_hangs_up_and_frees_its_slot(
    autojump_clock: trio.testing.MockClock, site: Site, fault: Fault
) -> None:
    with trio.move_on_after(5):
        await site.read(fault)
    assert site.client.idle == 0
    assert await site.read() == GOOD


async def test_connections_per_server_are_bounded(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    net = MemoryNet(nursery)
    net.add("store", FaultyServer({"/blobs/a": BLOB}, after=Drip(size=10_000, every=1)).serve)
    buffers = [bytearray(10_000) for _ in range(9)]
    began = trio.current_time()
    with Client(dial=net.dial, connections=3) as client:
        origin = HttpOrigin("http://store", client)
        async with trio.open_nursery() as readers:
            for at, into in enumerate(buffers):
                readers.start_soon(origin.read, "a", at * 10_000, memoryview(into), _nothing)
        assert client.idle == 3
    assert (len(net.dialled), trio.current_time() - began) == (3, 3)
    assert b"".join(buffers) == BLOB[:90_000]


def _nothing(_count: int) -> None:
    return


async def test_one_stalled_server_does_not_hold_up_another(
    autojump_clock: trio.testing.MockClock, site: Site, nursery: trio.Nursery
) -> None:
    site.net.add("other", FaultyServer({"/blobs/a": BLOB}).serve)
    site.server.after = Stall()
    other = HttpOrigin("http://other", site.client)
    for _ in range(20):
        nursery.start_soon(_swallow, site.origin)
    await trio.sleep(1)
    into = bytearray(SIZE)
    await other.read("a", START, memoryview(into), _nothing)
    assert into == GOOD
    assert trio.current_time() < PATIENCE


async def _swallow(origin: HttpOrigin) -> None:
    with pytest.raises(Unreachable):
        await origin.read("a", 0, memoryview(bytearray(10)), _nothing)
