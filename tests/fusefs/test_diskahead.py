"""What is read from the disk ahead of sequential readers, and that nothing is kept for nobody."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import cast

import pytest
import trio
import trio.testing

from chunkstore import Buffer
from fusefs.diskahead import KEPT, LEAST, MOST, QUICK, REQUESTS, DiskAhead
from fusefs.vfs import Vfs
from rafs import NoEntry

MIB = 1 << 20


class Disk:
    """Files of 64 MiB each, all here and none in memory; a read takes a second."""

    def __init__(self) -> None:
        self.size = 64 * MIB
        self.asked: list[tuple[int, int]] = []
        """File and MiB of each read."""
        self.fetched: list[tuple[int, int]] = []
        self.read_size = 0
        """Bytes."""
        self.lent = 0
        """Pieces that are somebody's."""
        self.most = 0
        self.here: Callable[[int], bool] = lambda _: True
        self.gone = False
        self.content: bytes | None = None
        """What is in the files, where that counts."""

    def attributes(self, node: int) -> tuple[int, ...]:
        return (0, 0, 0, 0, 0, self.size)

    async def from_disk(self, node: int, start: int, size: int) -> Buffer | None:
        if start >= self.size or not self.here(start):
            return None
        self.asked += [(node, place // MIB) for place in range(start, start + size, MIB)]
        await trio.sleep(1)
        self.lent += 1
        self.most = max(self.most, self.lent)
        self.read_size += size
        if self.content is not None:
            return self.content[start : start + size]
        places = range(start, start + size, MIB)
        return b"".join(_numbered(place, min(MIB, start + size - place)) for place in places)

    def lend(self, node: int, data: Buffer | None) -> None:
        if self.gone:
            raise NoEntry("the image has gone")
        self.lent -= 1

    async def read(self, node: int, start: int, size: int) -> Buffer:
        self.fetched.append((node, start // MIB))
        return b"fetched"


def _numbered(start: int, size: int = MIB) -> bytes:
    return (b"%d" % (start // MIB)).ljust(size, b"-")


@pytest.fixture
def disk() -> Disk:
    return Disk()


async def _started(disk: Disk, nursery: trio.Nursery) -> DiskAhead:
    ahead = DiskAhead(cast(Vfs, disk))  # of a Vfs it needs no more than a Disk has
    nursery.start_soon(ahead.run)
    await trio.testing.wait_all_tasks_blocked()
    return ahead


async def test_a_sequential_reader_finds_its_pieces_read(
    disk: Disk, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        ahead = await _started(disk, nursery)
        for number in range(16):
            assert await ahead.read(7, number * MIB, MIB) == _numbered(number * MIB)
        assert trio.current_time() < 2 + 16 / REQUESTS + 1
        assert ahead.served >= 12
        await trio.sleep(2 * KEPT + 2)
        assert sorted(disk.asked) == [(7, number) for number in range(16 + REQUESTS)]
        assert disk.lent == 0
        assert not disk.fetched
        nursery.cancel_scope.cancel()


async def test_scattered_and_small_reads_are_read_alone(
    disk: Disk, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        ahead = await _started(disk, nursery)
        for number in (5, 40, 2, 30):
            await ahead.read(7, number * MIB, MIB)
        for number in range(4):
            await ahead.read(7, number * LEAST // 2, LEAST // 2)
        assert disk.asked == [(7, 5), (7, 40), (7, 2), (7, 30), (7, 0), (7, 0), (7, 0), (7, 0)]
        assert not disk.fetched
        assert disk.lent == 0
        nursery.cancel_scope.cancel()


async def test_what_is_not_here_is_fetched_and_not_read_ahead(
    disk: Disk, autojump_clock: trio.testing.MockClock
) -> None:
    disk.here = lambda start: start < 4 * MIB
    async with trio.open_nursery() as nursery:
        ahead = await _started(disk, nursery)
        answers = [await ahead.read(7, number * MIB, MIB) for number in range(8)]
        assert answers == [*(_numbered(number * MIB) for number in range(4)), *[b"fetched"] * 4]
        assert disk.fetched == [(7, number) for number in range(4, 8)]
        nursery.cancel_scope.cancel()


async def test_many_readers_have_a_bounded_number_of_pieces(
    disk: Disk, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        ahead = await _started(disk, nursery)

        async def read_all(node: int) -> None:
            for number in range(12):
                await ahead.read(node, number * MIB, MIB)

        async with trio.open_nursery() as readers:
            for node in range(16):
                readers.start_soon(read_all, node)
        assert disk.most <= MOST + 16
        await trio.sleep(2 * KEPT + 2)
        assert disk.lent == 0
        nursery.cancel_scope.cancel()


async def test_pieces_of_an_image_that_went_are_let_go_of(
    disk: Disk, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        ahead = await _started(disk, nursery)
        for number in range(3):
            await ahead.read(7, number * MIB, MIB)
        disk.gone = True
        await trio.sleep(2 * KEPT + 2)
        nursery.cancel_scope.cancel()


async def test_a_file_read_to_its_end_two_requests_at_a_time_is_read_once(
    disk: Disk, autojump_clock: trio.testing.MockClock
) -> None:
    disk.size = 63 * MIB + 5000
    async with trio.open_nursery() as nursery:
        ahead = await _started(disk, nursery)
        for number in range(0, 64, 2):
            async with trio.open_nursery() as readers:
                later, sooner = number + number % 4 // 2, number + 1 - number % 4 // 2
                for one in (later, sooner):  # now and then in the wrong order
                    readers.start_soon(ahead.read, 7, one * MIB, MIB if one < 63 else 5000)
        await trio.sleep(2 * KEPT + 2)
        assert sorted(disk.asked) == [(7, number) for number in range(64)]
        assert ahead.served >= 60
        assert ahead.wasted == 0
        assert disk.lent == 0
        nursery.cancel_scope.cancel()


async def test_nothing_is_read_on_for_a_slow_reader_or_where_pushes_do_it(
    disk: Disk, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        ahead = await _started(disk, nursery)
        for number in range(8):
            await ahead.read(7, number * MIB, MIB)
            await trio.sleep(QUICK + 0.1)
        await trio.sleep(2 * KEPT)
        wasted = ahead.wasted
        for number in range(8):
            await ahead.read(8, number * MIB, MIB, alone=True)
        assert disk.asked == [(7, number) for number in range(8)] + [
            (8, number) for number in range(8)
        ]
        assert wasted == ahead.wasted == 0
        assert disk.lent == 0
        nursery.cancel_scope.cancel()


async def test_who_stops_in_the_middle_is_told_in_the_count(
    disk: Disk, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        ahead = await _started(disk, nursery)
        for number in range(4):
            await ahead.read(7, number * MIB, MIB)
        await trio.sleep(2 * KEPT + 2)
        assert ahead.wasted == REQUESTS // 2
        nursery.cancel_scope.cancel()


KIB = 1 << 10
BEGINNINGS = [
    [256, 256, 1024, 1024, 256, 512, 512],  # as EROFS begins for a program that reads 128 KiB
    [512, 512, 512, 1024],
    [1024, 1024, 1020, 4, 1024, 516],
]


@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_requests_that_still_grow_get_their_bytes_and_nothing_is_read_twice(
    disk: Disk, autojump_clock: trio.testing.MockClock, beginning: list[int]
) -> None:
    disk.size = 24 * MIB + 5000
    disk.content = random.Random(1).randbytes(disk.size)
    async with trio.open_nursery() as nursery:
        ahead = await _started(disk, nursery)
        start, answer = 0, b""
        for size in [*beginning, *[1024] * 24]:
            if start < disk.size:
                answer += await ahead.read(7, start, size * KIB)
                start += size * KIB
        assert answer == disk.content
        assert disk.read_size == disk.size
        assert ahead.served > 15
        await trio.sleep(2 * KEPT + 2)
        assert ahead.wasted == 0
        nursery.cancel_scope.cancel()
