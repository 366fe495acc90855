"""What is fetched of a model's next file, before anybody opens it."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fixtures.extents import DecodedFiles
from fixtures.sketch import Sketch
from fixtures.weights import safetensors
from fusefs.pagecache.feed import STEP
from fusefs.pagecache.push import PageCache
from fusefs.pagecache.shards import Shards, names
from fusefs.vfs import ROOT, Image, Vfs
from rafs import Bootstrap
from rafs.tree import Node

COUNT, STEPS = 5, 9
NAMES = [f"model-{number:05d}-of-{COUNT:05d}.safetensors" for number in range(1, COUNT + 1)]
PARTS = [f"part-{number:05d}-of-00003.gguf" for number in range(1, 4)]
FILES = [safetensors([(512, 1024)] * STEPS, seed=seed) for seed in range(COUNT)]
ALONE = safetensors([(512, 1024)] * STEPS, seed=COUNT)
INDEX = json.dumps({"weight_map": {f"w{i}": name for i, name in enumerate(NAMES)}}).encode()


@pytest.fixture(scope="module")
def sketched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an image of a model in a folder; a blob a file, as they are numbered."""
    folder = tmp_path_factory.mktemp("image")
    sketch = Sketch(chunk_size=STEP)
    below = Node(stat.S_IFDIR | 0o755)
    sketch.root.children = {b"model": below, b"alone": sketch.file(ALONE, blob=COUNT + 1)}
    below.children = {
        name.encode(): sketch.file(data, blob=number)
        for number, (name, data) in enumerate(zip(NAMES, FILES, strict=True))
    }
    below.children[b"model.safetensors.index.json"] = sketch.file(INDEX, blob=COUNT)
    below.children |= {name.encode(): sketch.file(b"GGUF", blob=COUNT) for name in PARTS}
    sketch.save(folder)
    return folder


class Session:
    """A page cache over that image, before any of its data is here."""

    def __init__(self, folder: Path) -> None:
        self.image = Bootstrap.open(folder / "image.boot")
        self.reader = DecodedFiles(folder / "decoded", ready=False)
        self.vfs = Vfs(Image("image", self.image, self.reader))
        self.pushed: set[int] = set()
        self.room = 1 << 40
        self.pagecache = PageCache(
            self.vfs,
            store=lambda node, start, data: self.pushed.add(node),
            room=lambda: self.room,
            clock=trio.current_time,
        )

    def node(self, path: str) -> int:
        node = ROOT
        for name in path.encode().split(b"/"):
            found = self.vfs.lookup(node, name)
            assert found is not None
            node = found
        return node

    def read(self, number: int) -> None:
        """Do what the handler of a file's first READ does."""
        node = self.node(f"model/{NAMES[number]}")
        self.pagecache.opened(node)
        self.pagecache.read(node, 0, 4096)
        self.pagecache.began(node, FILES[number][:4096])

    def here(self) -> Sequence[int]:
        """Return how many chunks of each file are here."""
        ids = [blob.id for blob in self.image.blobs]
        counts = [sum(blob == key[0] for key in self.reader.here) for blob in ids]
        return counts[:COUNT]


@pytest.fixture
async def session(sketched: Path, nursery: trio.Nursery, autojump_clock: MockClock) -> Session:
    made = Session(sketched)
    nursery.start_soon(made.pagecache.run)
    await wait_all_tasks_blocked()
    return made


ALL = STEPS + 1
"""Chunks of a file: the header makes it a little longer."""


async def test_what_comes_next_is_fetched_and_not_pushed(session: Session) -> None:
    session.read(0)
    await session.reader.settle()
    assert session.here() == [ALL] * COUNT
    assert session.pushed == {session.node(f"model/{NAMES[0]}")}


async def test_nothing_of_it_is_asked_for_before_the_file_at_hand(session: Session) -> None:
    session.read(0)
    await wait_all_tasks_blocked(0.01)
    session.reader.arrive()  # the first chunk; the index is the last to be asked for
    await wait_all_tasks_blocked(0.01)
    asked = [extents[0].blob for extents, _ in session.reader.expected]
    first = session.image.blobs[0].id
    order = [blob.id == first for blob in asked if blob is not None]
    assert order[: ALL - 1] == [True] * (ALL - 1)


async def test_it_goes_no_further_than_memory_allows(session: Session) -> None:
    session.room = 4 * 12 * STEP
    session.read(0)
    await session.reader.settle()
    here = session.here()
    assert here[0] == ALL
    assert 0 < sum(here[1:]) <= 12, "less than the memory's share"


async def test_a_shard_that_is_read_then_is_pushed_as_ever(session: Session) -> None:
    session.read(0)
    await session.reader.settle()
    session.read(1)
    await session.reader.settle()
    assert session.pushed == {session.node(f"model/{name}") for name in NAMES[:2]}


async def test_a_file_that_no_index_names_is_followed_by_none(session: Session) -> None:
    node = session.node("alone")
    session.pagecache.read(node, 0, 4096)
    session.pagecache.began(node, ALONE[:4096])
    await session.reader.settle()
    assert session.here() == [0] * COUNT


async def test_parts_of_a_gguf_file_follow_one_another(session: Session) -> None:
    async def head(node: int, size: int) -> bytes:
        return INDEX

    shards = Shards(session.vfs, head)
    first, second, third = (session.node(f"model/{name}") for name in PARTS)
    await shards.learn(first)
    assert (shards.after(first), shards.after(second), shards.after(third)) == (second, third, None)
    assert shards.after(session.node(f"model/{NAMES[0]}")) == session.node(f"model/{NAMES[1]}")
    assert shards.after(session.node(f"model/{NAMES[-1]}")) is None


@pytest.mark.parametrize(
    ("index", "found"),
    [
        (b'{"weight_map": {"a": "2", "b": "1", "c": "2"}}', [b"1", b"2"]),
        (b'{"weight_map": {}}', []),
        (b'{"weight_map": {"a": 1}}', []),
        (b'{"weight_map": ["a"]}', []),
        (b"{", []),
        (b"[" * 100_000, []),
        (b"\xff", []),
    ],
)
def test_an_index_names_files_or_none(index: bytes, found: Sequence[bytes]) -> None:
    assert list(names(index)) == found
