"""Caches that image stores of tests read through, and registries that are in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from chunkstore.blobcache import BlobCache
from fixtures.imagestores import OpenCache
from fixtures.registrynet import Net


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


@pytest.fixture
async def net(nursery: trio.Nursery) -> AsyncIterator[Net]:
    made = Net(nursery)
    with made.client:
        yield made
