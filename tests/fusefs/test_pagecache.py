"""The page cache's filling, without a kernel."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from chunkstore import Buffer, Unreachable
from fixtures.extents import DecodedFiles
from fixtures.mounting import until
from fixtures.sketch import Sketch
from fixtures.weights import safetensors
from fusefs.pagecache.behind import SOON
from fusefs.pagecache.feed import STEP
from fusefs.pagecache.push import PageCache
from fusefs.vfs import ROOT, Image, Vfs
from rafs import Bootstrap

MODEL = safetensors([(512, 1024)] * 36)
"""36 MiB, and a header."""
HEAD = len(MODEL) - 36 * STEP


class Kernel:
    """Takes what is pushed."""

    def __init__(self) -> None:
        self.pages = bytearray(len(MODEL))
        self.pushed: list[tuple[int, int]] = []
        self.failure: OSError | None = None
        self.threads: set[int] = set()
        self.blocked = threading.Event()
        self.blocked.set()

    def store(self, node: int, start: int, data: Buffer) -> None:
        assert self.blocked.wait(10)
        self.threads.add(threading.get_ident())
        if self.failure is not None:
            raise self.failure
        self.pages[start : start + len(data)] = data
        self.pushed.append((start, start + len(data)))


@pytest.fixture(scope="module")
def sketched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an image of a model, a plain file and a small one."""
    folder = tmp_path_factory.mktemp("image")
    sketch = Sketch(chunk_size=STEP)
    sketch.root.children = {
        b"model": sketch.file(MODEL),
        b"plain": sketch.file(MODEL[HEAD:]),
        b"small": sketch.file(MODEL[: 4 * STEP]),
    }
    sketch.save(folder)
    return folder


class Session:
    """A page cache over that image, before any of its data is here."""

    def __init__(self, folder: Path) -> None:
        self.reader = DecodedFiles(folder / "decoded", ready=False)
        self.kernel = Kernel()
        self.vfs = Vfs(Image("image", Bootstrap.open(folder / "image.boot"), self.reader))
        self.room = 1 << 40
        self.pagecache = PageCache(
            self.vfs, store=self.kernel.store, room=lambda: self.room, clock=trio.current_time
        )

    def node(self, name: bytes) -> int:
        node = self.vfs.lookup(ROOT, name)
        assert node is not None
        return node

    def read(self, name: bytes, start: int, size: int) -> None:
        """Do what the handler of a READ does, with what it answers at once."""
        node = self.node(name)
        self.pagecache.read(node, start, size)
        if start == 0:
            self.pagecache.began(node, MODEL[:size] if name != b"plain" else MODEL[HEAD:][:size])


@pytest.fixture
async def session(sketched: Path, nursery: trio.Nursery) -> Session:
    made = Session(sketched)
    nursery.start_soon(made.pagecache.run)
    await wait_all_tasks_blocked()
    return made


async def test_a_model_is_brought_whole_after_its_first_read(
    session: Session, patient_clock: MockClock
) -> None:
    session.pagecache.opened(session.node(b"model"))
    session.read(b"model", 0, 4096)
    await session.reader.settle()
    assert session.kernel.pages[4096:] == MODEL[4096:], "no more than a quarter of the level"
    assert session.reader.lent == 0
    assert session.pagecache.pushed == len(MODEL) - 4096
    assert session.pagecache.pushes == 37
    assert threading.get_ident() not in session.kernel.threads


async def test_the_caches_pages_of_what_was_pushed_are_let_go_of(
    session: Session, patient_clock: MockClock
) -> None:
    session.pagecache.opened(session.node(b"model"))
    session.read(b"model", 0, 4096)
    await session.reader.settle()
    assert session.reader.gone == []
    await trio.sleep(SOON + 10)
    assert len(session.reader.gone) == len(set(session.reader.gone)) == 37


async def test_small_files_and_first_reads_of_others_bring_nothing(
    session: Session, patient_clock: MockClock
) -> None:
    session.read(b"small", 0, STEP)
    session.read(b"plain", 0, STEP)
    session.read(b"plain", 9 * STEP, STEP)
    assert session.reader.expected == []


async def test_a_file_that_is_read_in_order_is_fed(
    session: Session, patient_clock: MockClock
) -> None:
    for step in range(8):
        session.read(b"plain", step * STEP, STEP)
    await session.reader.settle()
    assert session.kernel.pushed
    assert min(start for start, _ in session.kernel.pushed) >= 4 * STEP


async def test_a_file_that_is_here_is_not_fed_unless_it_is_a_model(
    session: Session, patient_clock: MockClock
) -> None:
    session.reader.ready = True
    for step in range(32):
        session.read(b"plain", step * STEP, STEP)
    for step in range(0, 36, 2):
        session.read(b"plain", (step * 5 % 36) * STEP, 4096)
    assert not session.pagecache.pushes_to(session.node(b"plain"))
    session.read(b"model", 0, 4096)
    assert session.pagecache.pushes_to(session.node(b"model"))
    await session.reader.settle()
    assert session.kernel.pages[4096:] == MODEL[4096:]


async def test_a_file_whose_rest_is_missing_is_fed_from_there_on(
    session: Session, patient_clock: MockClock
) -> None:
    session.reader.ready = True
    for step in range(16):
        session.read(b"plain", step * STEP, STEP)
    assert not session.pagecache.pushes_to(session.node(b"plain"))
    session.reader.ready = False
    for step in range(16, 26):
        session.read(b"plain", step * STEP, STEP)
    assert session.pagecache.pushes_to(session.node(b"plain"))


async def test_a_file_that_is_read_all_over_is_fed(
    session: Session, patient_clock: MockClock
) -> None:
    for step in range(0, 36, 2):
        session.read(b"plain", (step * 5 % 36) * STEP, 4096)
    await session.reader.settle()
    assert session.kernel.pushed


async def test_a_closed_file_gets_no_more(session: Session, patient_clock: MockClock) -> None:
    node = session.node(b"model")
    session.pagecache.opened(node)
    session.pagecache.opened(node)
    session.read(b"model", 0, 4096)
    assert len(session.reader.expected) >= 37
    session.pagecache.closed(node)
    session.reader.arrive()
    await wait_all_tasks_blocked(0.01)
    await trio.sleep(0.1)
    assert len(session.kernel.pushed) == 1, "somebody still has it open"
    session.pagecache.closed(node)
    await session.reader.settle()
    assert len(session.kernel.pushed) == 1
    session.pagecache.opened(node)
    await session.reader.settle()
    assert session.kernel.pages[4096:] == MODEL[4096:], "nor is it forgotten"


async def test_when_memory_is_short_nothing_is_brought(
    session: Session, patient_clock: MockClock
) -> None:
    session.room = 4 * 8 * STEP
    session.read(b"model", 0, 4096)
    assert len(session.reader.expected) == 8
    session.room = 0
    await session.reader.settle()
    await trio.sleep(1)
    assert len(session.kernel.pushed) == 8
    session.read(b"model", 0, 4096)
    assert session.reader.expected == []
    session.room = 1 << 40
    await trio.sleep(1)
    assert session.reader.expected, "noticed by itself"


async def test_what_the_source_cannot_give_is_left_to_readers(
    session: Session, patient_clock: MockClock
) -> None:
    session.read(b"model", 0, 4096)
    session.reader.arrive(Unreachable("the origin is silent"))
    while session.reader.expected:
        session.reader.arrive()
    await session.reader.settle()
    assert len(session.kernel.pushed) == 37 - 1
    session.read(b"model", 0, 1)
    await session.reader.settle()
    assert session.kernel.pages[4096:] == MODEL[4096:]


async def test_a_file_that_the_kernel_forgot_is_no_longer_fed(
    session: Session, patient_clock: MockClock
) -> None:
    session.kernel.failure = OSError(errno.ENOENT, "forgotten")
    session.read(b"model", 0, 4096)
    await session.reader.settle()
    assert session.pagecache.pushes == 0
    assert session.reader.lent == 0


async def test_where_there_is_no_room_to_fetch_it_is_tried_again(
    session: Session, patient_clock: MockClock
) -> None:
    session.reader.room = 0
    session.read(b"model", 0, 4096)
    assert session.reader.expected == []
    session.reader.room = 1 << 20
    await trio.sleep(1)
    assert len(session.reader.expected) >= 37


async def test_pushes_that_are_stuck_block_neither_loop_nor_end(
    sketched: Path, autojump_clock: MockClock
) -> None:
    session = Session(sketched)
    session.kernel.blocked.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.pagecache.run)
        await wait_all_tasks_blocked()
        session.read(b"model", 0, 4096)
        _arrive(session, range(20))
        await trio.sleep(5)
        assert session.reader.lent, "in the hands of threads"
        nursery.cancel_scope.cancel()
    session.kernel.blocked.set()
    until(lambda: not session.reader.lent)


def _arrive(session: Session, steps: Sequence[int]) -> None:
    for _ in steps:
        session.reader.arrive()
