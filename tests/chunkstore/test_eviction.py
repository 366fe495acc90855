"""Eviction: the limit is kept, by use, and no reply loses its bytes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chunkstore import Digest
from chunkstore.blobcache import BlobCache
from chunkstore.eviction import Eviction, usage
from chunkstore.readymap import CLAIMED, READY
from chunkstore.shelf import Shelf
from fixtures.blobs import MadeBlob, make_blob
from fixtures.cacheuser import BLOB, OWNER, peek

MIB = 1 << 20
SLACK = 16384
"""Bytes that the filesystem's own notes about holes may take."""


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[BlobCache]:
    opened = BlobCache(tmp_path / "cache")
    yield opened
    opened.close()


def filled(cache: BlobCache, made: MadeBlob, *, use: int = 255) -> Shelf:
    shelf = Shelf(cache, made.blob, OWNER)
    for chunk in made.chunks:
        assert shelf.put(chunk, made.data(chunk.index), use=use)
    return shelf


def ready(shelf: Shelf) -> list[int]:
    states = shelf.shared.map.states
    return [index for index in range(len(states)) if states[index] == READY]


def names(cache: BlobCache) -> list[str]:
    return [place.name for place in cache.places()]


def blobs(count: int) -> list[MadeBlob]:
    return [make_blob([65536] * 8, seed=n, blob_id=f"blob-{n}") for n in range(count)]


def test_unused_blobs_go_first_the_longest_unused_before_others(cache: BlobCache) -> None:
    made = blobs(4)
    shelves = [filled(cache, each) for each in made]
    for number, shelf in enumerate(shelves[:3]):
        shelf.close()
        os.utime(cache.place(made[number].blob.id).map, (0, [300, 100, 200][number]))
    cache.limit = usage(cache.root) - 1
    Eviction(cache).keep_limit()
    assert names(cache) == ["blob-0", "blob-2", "blob-3"]
    cache.limit = 1
    Eviction(cache).keep_limit()
    assert names(cache) == ["blob-3"]
    assert list((cache.root / "trash").iterdir()) == []


def test_blobs_in_use_lose_the_chunks_used_least(cache: BlobCache) -> None:
    shelf = filled(cache, BLOB, use=100)
    for index in (2, 3, 5, 7, 11):
        assert shelf.find(BLOB.chunks[index]) is not None  # counts as a use
    for index in (0, 1):
        shelf.shared.map.uses[index] = 50
    with cache.evicting:
        Eviction(cache).free(65536 + SLACK)
        assert ready(shelf) == list(range(2, 25))
        Eviction(cache).free(17 * 65536 - SLACK)
    assert [index for index in ready(shelf) if index != 24] == [2, 3, 5, 7, 11]
    assert shelf.shared.map.uses[2] == 63  # halved twice
    assert usage(cache.root) < 6 * 65536 + 40_000


def test_chunks_that_went_can_come_again(cache: BlobCache) -> None:
    shelf = filled(cache, BLOB)
    shelf.shared.evict([3, 4], 1)
    assert peek(shelf, 3) is None
    assert peek(shelf, 5) == BLOB.data(5)
    assert shelf.put(BLOB.chunks[3], BLOB.data(3))
    assert peek(shelf, 3) == BLOB.data(3)


def test_a_blob_open_elsewhere_is_in_use(cache: BlobCache) -> None:
    elsewhere = BlobCache(cache.root)
    shelf = filled(elsewhere, BLOB)
    with cache.evicting:
        assert Eviction(cache).free(1 << 40) >= 20 * 65536
    assert names(cache) == [BLOB.blob.id]
    assert ready(shelf) == []
    assert all(peek(shelf, index) is None for index in range(25))
    elsewhere.close()


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_bytes_under_a_lease_stay(cache: BlobCache, where: str) -> None:
    other = BlobCache(cache.root) if where == "elsewhere" else cache
    shelf, evictor = filled(cache, BLOB), other.open(BLOB.blob)
    chunk = BLOB.chunks[3]
    assert shelf.shared.lease.share()
    view = shelf.shared.piece(chunk.offset, chunk.stop)
    assert evictor.evict([3], 0.05) == 0
    assert view == BLOB.data(3)
    assert shelf.find(chunk) is None  # no new reader, so that the evictor's turn comes
    shelf.shared.lease.release()
    assert evictor.evict([3], 0.05) > 0
    other.close_file(evictor)
    if other is not cache:
        other.close()


def test_what_an_evictor_had_to_leave_goes_first_next_time(cache: BlobCache) -> None:
    shelf = filled(cache, BLOB)
    assert shelf.shared.lease.share()
    assert shelf.shared.evict([3, 4], 0.01) == 0
    shelf.shared.lease.release()
    assert shelf.shared.map.states[3] == CLAIMED
    with cache.evicting:
        assert Eviction(cache).free(2 * 65536 - SLACK) >= 2 * 65536 - SLACK
    assert ready(shelf) == [index for index in range(25) if index not in (3, 4)]


def test_a_file_in_use_is_left_alone_after_one_try_and_others_give_the_room(
    cache: BlobCache,
) -> None:
    one, other = blobs(2)
    busy, idle = filled(cache, one, use=100), filled(cache, other)
    assert busy.shared.lease.share()
    with cache.evicting:
        assert Eviction(cache).free(2 * 65536 - SLACK) >= 2 * 65536 - SLACK
    busy.shared.lease.release()
    assert (ready(busy), ready(idle)) == ([2, 3, 4, 5, 6, 7], [2, 3, 4, 5, 6, 7])


def test_a_writer_that_finished_meanwhile_leaves_no_ready_hole(cache: BlobCache) -> None:
    shelf = filled(cache, BLOB)
    file = shelf.shared
    assert file.lease.share()
    evictor = threading.Thread(target=file.evict, args=([3], 10))
    evictor.start()
    while file.map.states[3] == READY or not file.lease.barred:
        pass
    file.map.states[3] = READY  # what a writer with the lease does last
    file.lease.release()
    evictor.join()
    assert file.map.states[3] == CLAIMED
    assert peek(shelf, 3) is None


def test_a_limit_is_kept_while_writing(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", limit=4 * MIB)
    eviction = Eviction(cache)
    made = make_blob([65536] * 200)
    shelf = Shelf(cache, made.blob, OWNER)
    most = 0
    for chunk in made.chunks:
        assert shelf.put(chunk, made.data(chunk.index))
        if eviction.wrote(chunk.size):
            eviction.keep_limit()
        most = max(most, usage(cache.root))
    assert 3 * MIB < most <= 4 * MIB + 65536
    assert len(ready(shelf)) > 40
    cache.close()


def test_without_a_limit_nothing_goes(cache: BlobCache) -> None:
    filled(cache, BLOB).close()
    eviction = Eviction(cache)
    assert not eviction.wrote(1 << 40)
    assert eviction.keep_limit() == 0
    assert names(cache) == [BLOB.blob.id]


def test_one_process_at_a_time_keeps_the_limit(cache: BlobCache) -> None:
    filled(cache, BLOB).close()
    cache.limit = 1
    elsewhere = BlobCache(cache.root)
    with elsewhere.evicting:
        assert Eviction(cache).keep_limit() == 0
    assert Eviction(cache).keep_limit() > 0
    elsewhere.close()


def test_an_eviction_that_freed_nothing_is_not_repeated_at_once(cache: BlobCache) -> None:
    now = [0.0]
    eviction = Eviction(cache, clock=lambda: now[0])
    assert not eviction.make_room(1 << 60)
    filled(cache, BLOB).close()
    assert not eviction.make_room(1 << 60)
    now[0] = 5.0
    assert eviction.make_room(1 << 60)
    assert names(cache) == []


def test_empty_folders_of_images_go_with_their_last_blob(cache: BlobCache) -> None:
    twin = make_blob([65536] * 3, seed=9, blob_id=BLOB.blob.id)
    file = cache.open(twin.blob, Digest.of(b"other"))
    file.put(twin.chunks[0], twin.data(0))
    cache.close_file(file)
    assert Eviction(cache).collect(0) > 0
    assert list((cache.root / "apart").iterdir()) == []


def test_readers_never_see_a_hole_while_chunks_go(cache: BlobCache) -> None:
    shelf = filled(cache, BLOB)
    wrong: list[int] = []
    seen = [0]
    done = threading.Event()

    def read(seed: int) -> None:
        order = random.Random(seed)
        while not done.is_set():
            index = order.randrange(25)
            data = peek(shelf, index)
            if data is None:
                shelf.put(BLOB.chunks[index], BLOB.data(index))
            else:
                seen[0] += 1
                if data != BLOB.data(index):
                    wrong.append(index)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(2)]
    for reader in readers:
        reader.start()
    order = random.Random(5)
    for _ in range(150):
        shelf.shared.evict(order.sample(range(25), 8), 0.05)
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert seen[0] > 0


def test_processes_never_see_a_hole_while_chunks_go_in_another(cache: BlobCache) -> None:
    shelf = filled(cache, BLOB)
    command = [sys.executable, "-m", "fixtures.cacheuser", "read", str(cache.root), "4000"]
    readers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    order = random.Random(5)
    while any(reader.poll() is None for reader in readers):
        shelf.shared.evict(order.sample(range(25), 8), 0.05)
        if order.random() < 0.1:
            shelf.put(BLOB.chunks[1], BLOB.data(1))
    for reader in readers:
        out, err = reader.communicate(timeout=60)
        assert (reader.returncode, err) == (0, "")
        assert int(out.split()[-1]) > 100
