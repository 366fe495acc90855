"""Chunks that leave a host's cache, or come into it, while it is asked for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from fixtures.blobs import make_blob
from fixtures.community import Community

MADE = make_blob([8192] * 24)


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    """Give threads, which touch files here, a moment before time jumps."""
    autojump_clock.autojump_threshold = 0.05
    return autojump_clock


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
        holding.file.evict(range(24), 1.0)
        assert await alone.store.read([MADE.extent(3)]) == MADE.data(3)
    assert trio.current_time() < 20
