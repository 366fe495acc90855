"""Direct reads that no thread waits for: what they bring, and what becomes of those given up."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from chunkstore.diskqueue import DEPTH, DiskQueue
from chunkstore.hugepages import room

SIZE = 1 << 20


@pytest.fixture
def content() -> bytes:
    return os.urandom(4 * SIZE + 5000)


@pytest.fixture
def file(tmp_path: Path, content: bytes) -> Iterator[int]:
    """Yield a file that is open for direct reads."""
    path = tmp_path / "file"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    os.fsync(fd)
    yield fd
    os.close(fd)


async def _started(nursery: trio.Nursery, queue: DiskQueue) -> DiskQueue:
    nursery.start_soon(queue.run)
    await trio.testing.wait_all_tasks_blocked()
    return queue


class _Answers:
    """What was told of reads."""

    def __init__(self) -> None:
        self.results: list[int] = []
        self.one = trio.Event()

    def tell(self, result: int) -> None:
        self.results.append(result)
        self.one.set()
        self.one = trio.Event()

    async def wait_for(self, count: int) -> None:
        with trio.fail_after(5):
            while len(self.results) < count:
                await self.one.wait()


async def test_many_reads_at_once_bring_the_bytes_of_their_places(
    nursery: trio.Nursery, file: int, content: bytes
) -> None:
    queue, answers = await _started(nursery, DiskQueue()), _Answers()
    rooms = [memoryview(room(SIZE)) for _ in range(5)]
    for number, place in enumerate(rooms):
        assert queue.read(file, place, number * SIZE, answers.tell)
    await answers.wait_for(5)
    assert sorted(answers.results) == [5000, SIZE, SIZE, SIZE, SIZE]
    read = b"".join(rooms)
    assert read[: len(content)] == content
    assert not any(read[len(content) :])


async def test_a_read_that_fails_is_told_with_its_errno(nursery: trio.Nursery, file: int) -> None:
    queue, answers = await _started(nursery, DiskQueue()), _Answers()
    crooked = queue.read(file, memoryview(room(SIZE)), 5, answers.tell)
    if crooked:
        await answers.wait_for(1)
    assert answers.results == ([-errno.EINVAL] if crooked else [])


async def test_a_full_queue_and_one_that_does_not_run_refuse(
    nursery: trio.Nursery, file: int
) -> None:
    place = memoryview(room(4096))
    queue, answers = DiskQueue(), _Answers()
    assert not queue.read(file, place, 0, answers.tell)
    await _started(nursery, queue)
    taken = [queue.read(file, place, 0, answers.tell) for _ in range(DEPTH + 1)]
    assert taken == [True] * DEPTH + [False]
    await answers.wait_for(DEPTH)
    assert queue.read(file, place, 0, answers.tell)
    await answers.wait_for(DEPTH + 1)
    assert answers.results == [4096] * (DEPTH + 1)


async def test_a_machine_without_such_a_queue_refuses(nursery: trio.Nursery, file: int) -> None:
    queue = await _started(nursery, DiskQueue("pdp11"))
    assert not queue.read(file, memoryview(room(4096)), 0, lambda _: None)


async def test_what_is_under_way_at_the_end_is_told_once(file: int) -> None:
    queue, answers = DiskQueue(), _Answers()
    async with trio.open_nursery() as nursery:
        await _started(nursery, queue)
        for number in range(4):
            assert queue.read(file, memoryview(room(SIZE)), number * SIZE, answers.tell)
        nursery.cancel_scope.cancel()
    assert len(answers.results) == 4
    assert set(answers.results) <= {SIZE, -errno.ECANCELED}
    assert not queue.read(file, memoryview(room(4096)), 0, answers.tell)
