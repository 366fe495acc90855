"""Which small files lie together, told by their chunks."""

from __future__ import annotations

import random
import re
import stat
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.gallery import gallery
from fixtures.sketch import Sketch
from rafs import Bootstrap, RafsError
from rafs.inode import Kind
from rafs.tree import Node


def _folder(sketch: Sketch, *files: tuple[bytes, bytes]) -> Node:
    node = Node(stat.S_IFDIR | 0o755)
    node.children = {name: sketch.file(data) for name, data in files}
    return node


def _told(image: Bootstrap) -> list[tuple[int, list[int]]]:
    return [(number, list(indices)) for block in image.folders() for number, indices in block]


def test_the_files_of_a_directory_are_told_together_and_no_others() -> None:
    sketch = Sketch(4096)
    one, two = _folder(sketch, (b"a", b"1"), (b"b", b"2" * 4096)), _folder(sketch, (b"c", b"3"))
    one.children[b"below"] = two
    one.children[b"empty"] = sketch.file(b"")
    one.children[b"large"] = sketch.file(b"4" * 4097)
    one.children[b"link"] = Node(stat.S_IFLNK | 0o777, target=b"a")
    marked = one.children[b"marked"] = sketch.file(b"5")
    marked.xattrs = {b"user.colour": b"blue"}
    sketch.root.children[b"one"] = one
    image = Bootstrap.decode(sketch.bootstrap())
    assert sorted(_told(image)) == [(0, [0, 1]), (0, [2])]


def test_files_of_several_blobs_are_told_apart() -> None:
    sketch = Sketch(4096)
    sketch.root.children = {b"%d" % n: sketch.file(b"%d" % n, blob=n % 2) for n in range(4)}
    image = Bootstrap.decode(sketch.bootstrap())
    assert sorted(_told(image)) == [(0, [0, 1]), (1, [0, 1])]


def test_a_large_directory_is_told_a_block_at_a_time() -> None:
    sketch = Sketch(4096)
    sketch.root.children = {b"%04d" % n: sketch.file(b"%d" % n) for n in range(1000)}
    told = _told(Bootstrap.decode(sketch.bootstrap()))
    assert len(told) > 1
    assert max(len(indices) for _, indices in told) < 400
    assert [index for _, indices in told for index in indices] == list(range(1000))


def test_a_directory_that_is_in_itself_is_looked_at_once() -> None:
    sketch = Sketch(4096)
    sketch.root.children[b"one"] = _folder(sketch, (b"a", b"1"), (b"b", b"2"))
    data = bytearray(sketch.bootstrap())
    image = Bootstrap.decode(bytes(data))
    inner = image.lookup(image.root, b"one")
    assert inner is not None
    file = image.lookup(inner, b"a")
    assert file is not None
    (at,) = (
        found.start()
        for found in re.finditer(re.escape(struct.pack("<Q", file)), data)
        if data[found.start() + 10] == Kind.FILE.value
    )
    struct.pack_into("<Q", data, at, inner)
    data[at + 10] = Kind.DIRECTORY.value
    assert _told(Bootstrap.decode(bytes(data))) == [(0, [1])]


_GALLERY = gallery().bootstrap()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 30))
def test_of_a_damaged_image_something_is_told_or_that_it_is_bad(seed: int) -> None:
    dice = random.Random(seed)
    data = bytearray(_GALLERY)
    for _ in range(dice.randint(1, 8)):
        data[dice.randrange(4096, len(data))] ^= 1 << dice.randrange(8)
    try:
        told = _told(Bootstrap.decode(bytes(data)))
    except RafsError:
        return
    assert sum(len(indices) for _, indices in told) <= len(data) // 32
