"""What is read from the disk ahead of sequential readers, and that nothing is kept for nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import trio
import trio.testing

from chunkstore import Buffer
from fusefs.diskahead import KEPT, LEAST, MOST, PIECES, DiskAhead
from fusefs.vfs import Vfs
from rafs import NoEntry

MIB = 1 << 20


class Disk:
    """Files of 64 MiB each, all here and none in memory; a read takes a second."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        """File and MiB of each read."""
        self.fetched: list[tuple[int, int]] = []
        self.lent = 0
        """Pieces that are somebody's."""
        self.most = 0
        self.here: Callable[[int], bool] = lambda _: True
        self.gone = False

    async def from_disk(self, node: int, start: int, size: int) -> Buffer | None:
        if start >= 64 * MIB or not self.here(start):
            return None
        self.asked.append((node, start // MIB))
        await trio.sleep(1)
        self.lent += 1
        self.most = max(self.most, self.lent)
        return b"%d" % (start // MIB)

    def lend(self, node: int, data: Buffer | None) -> None:
        if self.gone:
            raise NoEntry("the image has gone")
        self.lent -= 1

    async def read(self, node: int, start: int, size: int) -> Buffer:
        self.fetched.append((node, start // MIB))
        return b"fetched"


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
            assert await ahead.read(7, number * MIB, MIB) == b"%d" % number
        assert trio.current_time() < 2 + 16 / PIECES + 1
        assert ahead.served >= 12
        await trio.sleep(2 * KEPT + 2)
        assert sorted(disk.asked) == [(7, number) for number in range(16 + PIECES)]
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
        assert disk.asked == [(7, 5), (7, 40), (7, 2), (7, 30)]
        assert len(disk.fetched) == 4
        assert disk.lent == 0
        nursery.cancel_scope.cancel()


async def test_what_is_not_here_is_fetched_and_not_read_ahead(
    disk: Disk, autojump_clock: trio.testing.MockClock
) -> None:
    disk.here = lambda start: start < 4 * MIB
    async with trio.open_nursery() as nursery:
        ahead = await _started(disk, nursery)
        answers = [await ahead.read(7, number * MIB, MIB) for number in range(8)]
        assert answers == [b"0", b"1", b"2", b"3", *[b"fetched"] * 4]
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
