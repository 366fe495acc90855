"""Scrub: rot is found, dropped and reported; what lies in the cache can be listed and removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from chunkstore.blobcache import BlobCache
from chunkstore.readymap import CLAIMED, READY, UNVERIFIED
from chunkstore.scrub import checked, collect, inventory, scrub
from chunkstore.shelf import Shelf
from fixtures.blobs import make_blob
from fixtures.cacheuser import BLOB, OWNER, peek


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[BlobCache]:
    opened = BlobCache(tmp_path / "cache")
    yield opened
    opened.close()


@pytest.fixture
def shelf(cache: BlobCache) -> Shelf:
    opened = Shelf(cache, BLOB.blob, OWNER)
    for chunk in BLOB.chunks[:20]:
        assert opened.put(chunk, BLOB.data(chunk.index))
    return opened


def flip(cache: BlobCache, index: int) -> None:
    with cache.place(BLOB.blob.id).data.open("r+b") as file:
        at = BLOB.chunks[index].offset + BLOB.chunks[index].size // 2
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x20]))


def test_an_intact_cache_has_no_findings(cache: BlobCache, shelf: Shelf) -> None:
    found = list(checked(cache))
    assert [(one.index, one.intact) for one in found] == [(index, True) for index in range(20)]
    assert sum(one.size for one in found) == 20 * 65536


@pytest.mark.logs("bad chunk dropped")
def test_a_flipped_bit_is_found_and_dropped(cache: BlobCache, shelf: Shelf) -> None:
    flip(cache, 3)
    assert [one.index for one in checked(cache) if not one.intact] == [3]
    assert shelf.shared.map.states[3] == CLAIMED
    assert peek(shelf, 3) is None
    assert shelf.put(BLOB.chunks[3], BLOB.data(3))
    assert peek(shelf, 3) == BLOB.data(3)
    assert all(one.intact for one in checked(cache))


def test_doubtful_chunks_become_ready(cache: BlobCache, shelf: Shelf) -> None:
    shelf.shared.map.states[3] = UNVERIFIED
    assert all(one.intact for one in checked(cache))
    assert shelf.shared.map.states[3] == READY


def test_the_inventory_says_what_is_there(cache: BlobCache, shelf: Shelf) -> None:
    other = make_blob([4096] * 3, seed=1, blob_id="other")
    own = Shelf(cache, other.blob, OWNER)
    assert own.put(other.chunks[0], other.data(0))
    own.close()
    shared, unused = sorted(inventory(cache), key=lambda blob: not blob.in_use)
    assert (shared.name, shared.owner, shared.in_use) == (BLOB.blob.id, None, True)
    assert (shared.size, shared.ready_size) == (BLOB.blob.size, 20 * 65536)
    assert shared.ready_chunks == 20
    assert shared.allocated >= 20 * 65536
    assert (unused.name, unused.ready_size, unused.in_use) == ("other", 4096, False)


def test_only_unused_blobs_are_collected(cache: BlobCache, shelf: Shelf) -> None:
    for seed in (1, 2):
        other = make_blob([65536] * 3, seed=seed, blob_id=f"other-{seed}")
        own = Shelf(cache, other.blob, OWNER)
        for chunk in other.chunks:
            assert own.put(chunk, other.data(chunk.index))
        own.close()
    assert collect(cache, 1 << 40) == 0
    assert collect(cache) >= 6 * 65536
    assert [blob.name for blob in inventory(cache)] == [BLOB.blob.id]
    assert peek(shelf, 3) == BLOB.data(3)


@pytest.mark.logs("bad chunk dropped")
async def test_the_background_scrub_finds_rot_at_its_own_pace(
    cache: BlobCache, shelf: Shelf, nursery: trio.Nursery, patient_clock: MockClock
) -> None:
    flip(cache, 19)
    nursery.start_soon(lambda: scrub(cache, rate=65536, before=0, between_passes=1000))
    await trio.sleep(25)
    assert shelf.shared.map.states[19] == CLAIMED
    assert shelf.shared.map.states.tobytes().count(READY) == 19
    flip(cache, 0)
    await trio.sleep(900)
    assert shelf.shared.map.states[0] == READY  # not its turn yet
    await trio.sleep(200)
    assert shelf.shared.map.states[0] == CLAIMED


async def test_one_process_scrubs_a_folder(
    cache: BlobCache, shelf: Shelf, nursery: trio.Nursery, patient_clock: MockClock
) -> None:
    other = BlobCache(cache.root)
    nursery.start_soon(lambda: scrub(cache, rate=1, before=0))
    await trio.sleep(1)
    shelf.shared.map.states[5] = UNVERIFIED
    nursery.start_soon(lambda: scrub(other, rate=1e9, before=0))
    await trio.sleep(10)
    assert shelf.shared.map.states[5] == UNVERIFIED
    other.close()
