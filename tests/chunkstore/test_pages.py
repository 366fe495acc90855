"""What the page cache holds of cache files: not what readers' own files hold as well."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from chunkstore import Digest, Extent
from chunkstore.blobcache import BlobCache
from chunkstore.cachefile import buffers
from chunkstore.direct import resident
from chunkstore.diskqueue import DiskQueue, Done
from chunkstore.diskreads import DiskReads
from chunkstore.doubles import MANY, SLICE_BITS, SOON, Doubles
from chunkstore.held import Held
from chunkstore.hugepages import Room
from chunkstore.imagestore import ImageStore
from chunkstore.memory import MemoryOrigin
from chunkstore.originchunks import OriginChunks
from chunkstore.views import Views
from fixtures.blobs import make_blob
from fixtures.patience import patient

MADE = make_blob([1 << 20] * 4 + [300_001, 5000])


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[BlobCache]:
    opened = BlobCache(tmp_path / "cache")
    yield opened
    opened.close()


class Pages:
    """The pages of the one blob's cache file, looked at from outside."""

    def __init__(self, cache: BlobCache) -> None:
        self.fd = os.open(cache.place(MADE.blob.id).data, os.O_RDONLY)
        os.fsync(self.fd)

    def drop(self) -> None:
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def has(self, index: int) -> bool:
        chunk = MADE.chunks[index]
        return resident(self.fd, chunk.offset, chunk.stop)


async def _filled(nursery: trio.Nursery, cache: BlobCache) -> ImageStore:
    source = OriginChunks(MemoryOrigin({MADE.blob.id: MADE.stored}))
    # Time jumps whenever the disk takes its time: no read may fail for that.
    store = ImageStore(cache, source, owner=Digest.of(b"image"), deadline=10**9)
    await nursery.start(store.run)
    for extent in MADE.extents():
        await store.read([extent])
    return store


async def _settled(nursery: trio.Nursery, cache: BlobCache) -> tuple[ImageStore, Pages]:
    """Return the same when the disk has it, and nothing is to be let go of any more."""
    store = await _filled(nursery, cache)
    pages = Pages(cache)
    os.fsync(pages.fd)
    await trio.sleep(60)
    return store, pages


@pytest.fixture
def patient_clock() -> MockClock:
    return patient(0.05)  # for reads that no thread makes


async def test_pages_that_readers_got_are_let_go_of(
    cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock
) -> None:
    await _filled(nursery, cache)
    pages = Pages(cache)
    assert pages.has(0)
    os.fsync(pages.fd)  # as the kernel does it within a minute
    await trio.sleep(60)
    assert not pages.has(0)
    os.close(pages.fd)


async def test_pages_can_be_let_go_of_by_extents_as_far_as_they_are_on_the_disk(
    cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock
) -> None:
    store = await _filled(nursery, cache)
    pages = Pages(cache)
    os.fsync(pages.fd)
    assert pages.has(1)
    assert store.let_go([MADE.extent(1), MADE.extent(2)]) == 0
    assert not pages.has(1)
    assert not pages.has(2)
    assert await store.read([MADE.extent(1)]) == MADE.data(1)
    os.close(pages.fd)


async def test_large_pieces_are_read_past_the_page_cache(
    cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock
) -> None:
    store, pages = await _settled(nursery, cache)
    pages.drop()
    for index in (1, 4):
        assert store.look([MADE.extent(index)]) is None, "the disk would have to be waited for"
        assert await store.read([MADE.extent(index)]) == MADE.data(index)
        assert not pages.has(index)
    part = MADE.extent(2, 4096, 4096 + 300_000)
    assert await store.read([part]) == MADE.data(2)[4096 : 4096 + 300_000]
    crooked = MADE.extent(3, 5, 5 + 300_000)
    assert await store.read([crooked]) == MADE.data(3)[5 : 5 + 300_000]
    assert store.statistics().waiting_reads == 0
    os.close(pages.fd)


async def test_what_is_in_memory_is_not_read_from_the_disk(
    cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock
) -> None:
    store = await _filled(nursery, cache)
    pages = Pages(cache)
    os.fsync(pages.fd)
    assert pages.has(1)
    assert await store.from_disk([MADE.extent(1)]) is None
    pages.drop()
    await trio.sleep(60)
    pages.drop()
    data = await store.from_disk([MADE.extent(1)])
    assert store.lend(data) == MADE.data(1)
    os.close(pages.fd)


async def test_in_order_one_buffer_serves_all_reads(
    cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock
) -> None:
    store, pages = await _settled(nursery, cache)
    pages.drop()
    rooms = set()
    for _ in range(3):
        for index in range(4):
            data = await store.read([MADE.extent(index)])
            assert isinstance(data, memoryview)
            assert isinstance(data.obj, Room)
            assert data == MADE.data(index)
            rooms.add(id(data.obj))
    assert len(rooms) <= 2, "one is being filled while the last reply leaves"
    os.close(pages.fd)


async def test_holes_read_into_used_buffers_are_zeros(
    cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock
) -> None:
    store, pages = await _settled(nursery, cache)
    for _ in range(3):
        pages.drop()
        assert await store.read([MADE.extent(1)]) == MADE.data(1)
        mixed = [MADE.extent(0, 0, 400_000), Extent(None, None, 0, 9000), MADE.extent(2, 0, 100)]
        expected = MADE.data(0)[:400_000] + bytes(9000) + MADE.data(2)[:100]
        assert await store.read(mixed) == expected
    os.close(pages.fd)


async def test_small_pieces_are_views_of_pages_that_stay_a_moment(
    cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock
) -> None:
    store, pages = await _settled(nursery, cache)
    pages.drop()
    found = store.look([MADE.extent(5)])
    assert found == MADE.data(5)
    assert pages.has(5)
    await trio.sleep(2 * SOON)
    assert not pages.has(5)
    os.close(pages.fd)


async def test_small_pieces_here_and_there_are_not_let_go_of_before_their_time(
    cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock
) -> None:
    _, pages = await _settled(nursery, cache)
    file = cache.open(MADE.blob)
    doubles = Doubles()
    nursery.start_soon(doubles.run)
    os.preadv(pages.fd, [bytearray(5000)], MADE.chunks[5].offset)
    for number in range(4 * MANY):
        doubles.note(file, number << SLICE_BITS, (number << SLICE_BITS) + 5000)
    await trio.sleep(SOON / 2)
    assert pages.has(5)
    doubles.note(file, 0, MANY << SLICE_BITS)
    doubles.note(file, MANY << SLICE_BITS, (MANY << SLICE_BITS) + 1)
    await trio.sleep(SOON / 4)
    assert not pages.has(5)
    cache.close_file(file)
    os.close(pages.fd)


async def test_what_was_read_ahead_and_nobody_got_stays(
    cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock
) -> None:
    store, pages = await _settled(nursery, cache)
    pages.drop()
    for index in (1, 2, 3):
        chunk = MADE.chunks[index]
        os.preadv(pages.fd, [bytearray(chunk.size)], chunk.offset)
    for start in range(0, MADE.chunks[1].size, 1 << 16):
        assert store.look([MADE.extent(1, start, start + (1 << 16))]) is not None
    assert store.look([MADE.extent(2, 0, 5000)]) is not None
    await trio.sleep(2 * SOON)
    assert not pages.has(1)
    assert pages.has(3)
    os.close(pages.fd)


async def test_replies_in_flight_do_not_share_memory(
    cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock
) -> None:
    store, pages = await _settled(nursery, cache)
    pages.drop()
    found: dict[int, bytes] = {}

    async def read(index: int) -> None:
        found[index] = bytes(await store.read([MADE.extent(index)]))

    for _ in range(5):
        async with trio.open_nursery() as readers:
            for index in range(4):
                readers.start_soon(read, index)
        assert found == {index: MADE.data(index) for index in range(4)}
    os.close(pages.fd)


async def test_a_read_that_is_given_up_gives_its_memory_and_its_lease_back(
    cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock
) -> None:
    store, pages = await _settled(nursery, cache)
    for _ in range(40):
        pages.drop()
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.read([MADE.extent(1)])
        assert scope.cancelled_caught
    await trio.sleep(1)
    pages.drop()
    assert await store.read([MADE.extent(2)]) == MADE.data(2)
    await trio.sleep(1)
    file = cache.open(MADE.blob)
    with file.lease.exclusive(0) as alone:
        assert alone
    cache.close_file(file)
    os.close(pages.fd)


class BusyDisk(DiskQueue):
    """A queue in which every read would have to wait."""

    def read(self, fd: int, into: memoryview, start: int, done: Done) -> bool:
        done(-errno.EAGAIN)
        return True


@pytest.mark.parametrize("queue", [DiskQueue("pdp11"), BusyDisk()])
async def test_what_no_queue_takes_threads_read(
    cache: BlobCache, nursery: trio.Nursery, patient_clock: MockClock, queue: DiskQueue
) -> None:
    store, pages = await _settled(nursery, cache)
    views, shelf = Views(Held()), store.shelf(MADE.blob)
    assert shelf is not None
    views.shelves[MADE.blob.id] = shelf
    reads = DiskReads(views, queue)
    nursery.start_soon(reads.run)
    for index in (1, 2):
        pages.drop()
        data = await reads.read([MADE.extent(index)])
        assert data == MADE.data(index)
        buffers.give(data)
    os.close(pages.fd)
