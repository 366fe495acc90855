"""Chunks that leave a host's cache, or come into it, while it is asked for them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from chunkstore.blobcache import BlobCache
from chunkstore.originchunks import OriginChunks
from chunkstore.views import LENT
from fixtures.blobs import make_blob
from fixtures.community import Community
from fixtures.sources import GatedSource
from fixtures.swarmnet import shelf

MADE = make_blob([8192] * 24)


@pytest.fixture
def community(tmp_path: Path, nursery: trio.Nursery) -> Community:
    return Community(tmp_path, MADE, nursery)


async def test_what_was_evicted_a_moment_ago_is_asked_for_again(
    community: Community, clock: MockClock
) -> None:
    await community.schedule()
    alone = await community.join("alone")
    assert await alone.read() == MADE.decoded
    (holding,) = alone.swarm.holdings
    for _ in range(3):
        await trio.sleep(10 * LENT)
        assert holding.file.evict(range(24), 1.0) > 0
        assert await alone.store.read([MADE.extent(3)]) == MADE.data(3)
    assert trio.current_time() < 20


async def test_who_waits_for_another_host_waits_no_more_when_another_process_brings_it(
    community: Community, clock: MockClock
) -> None:
    await community.schedule()
    gated = GatedSource(OriginChunks(community.origin))
    slow = await community.join("slow", origin=gated)
    waiting = await community.join("waiting")
    start = trio.current_time()

    async def bring() -> None:
        await trio.sleep(0.5)
        assert waiting.came("origin") == 0
        with (
            closing(BlobCache(waiting.cache.root)) as cache,
            shelf(cache, MADE) as kept,
        ):
            assert kept.put(MADE.chunks[3], MADE.data(3))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow.store.read, [MADE.extent(3)])
        await gated.asked.wait()  # the scheduler has granted it the chunk
        nursery.start_soon(bring)
        assert await waiting.store.read([MADE.extent(3)]) == MADE.data(3)
        assert trio.current_time() - start < 3
        gated.gate.set()
