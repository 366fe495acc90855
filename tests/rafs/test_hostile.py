"""Images made to harm their reader: one clear error or an answer, in bounded time and memory.

A longer hunt, guided by the branches taken, is ``python -m fixtures.hostile``.
"""

from __future__ import annotations

import itertools
import random
import stat
import struct
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.foreign import v5_bootstrap
from fixtures.gallery import gallery
from fixtures.hostile import ask_bootstrap, attempt, mutated, seeds
from fixtures.sketch import Sketch
from rafs import BadImage, Bootstrap
from rafs import v6_tables as tables
from rafs.check import findings
from rafs.erofs import BLOCK, EXTENDED, INDEX, SLOT
from rafs.tree import Node

_SEEDS = seeds()


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(_SEEDS), st.randoms(use_true_random=False))
def test_a_mutated_image_gives_an_answer_or_one_error(
    seed: tuple[Callable[[bytes], None], bytes], chance: random.Random
) -> None:
    ask, good = seed
    attempt(ask, mutated(good, chance))


def test_v5_cut_at_every_byte_is_refused_or_says_so_later() -> None:
    sketch = Sketch()
    sketch.root.children = {
        b"file": sketch.file(b"x" * 5000),
        b"link": Node(stat.S_IFLNK | 0o777, target=b"target"),
        b"d": Node(stat.S_IFDIR | 0o755, xattrs={b"user.a": b"value"}),
    }
    good = v5_bootstrap(sketch)
    assert list(findings(Bootstrap.decode(good))) == []
    for size in range(len(good)):
        said = _said(good[:size])
        assert "at byte" in said, f"cut after {size} bytes"
        attempt(ask_bootstrap, good[:size])


def _said(data: bytes) -> str:
    """Return the first thing that is wrong with a bootstrap."""
    try:
        return str(next(findings(Bootstrap.decode(data)), ""))
    except BadImage as exc:
        return str(exc)


def test_directories_that_share_their_names_are_walked_once() -> None:
    sketch = Sketch()
    sketch.root.children = {b"%060d" % n: Node(stat.S_IFDIR | 0o755) for n in range(400)}
    many = Node(stat.S_IFDIR | 0o755, children={b"%0250d" % n: Node(0o100644) for n in range(400)})
    sketch.root.children[b"many"] = many
    data = bytearray(sketch.bootstrap())
    image = Bootstrap.decode(data)
    source = tables.unpack_super(data).meta + (image.lookup(image.root, b"many") or 0) * SLOT
    size, first = struct.unpack_from("<QI", data, source + 8)
    for _, nid, _ in list(image.scan(image.root, 0))[:-1]:
        place = tables.unpack_super(data).meta + nid * SLOT
        struct.pack_into("<H", data, place, 1)
        struct.pack_into("<QI", data, place + 8, size // BLOCK * BLOCK, first)
    found = list(itertools.islice(findings(Bootstrap.decode(data)), 10_000))
    assert 400 <= len(found) < 2000
    assert any("taken" in str(one) for one in found)


def test_v5_directories_that_share_their_children_are_walked_once() -> None:
    sketch = Sketch()
    sketch.root.children = {b"%04d" % number: Node(stat.S_IFDIR | 0o755) for number in range(2000)}
    data = bytearray(v5_bootstrap(sketch))
    for row in range(2, 1900):
        (place,) = struct.unpack_from("<I", data, 8192 + 4 * row - 4)
        struct.pack_into("<II", data, place * 8 + 92, row + 1, 2001 - row)
    found = list(itertools.islice(findings(Bootstrap.decode(data)), 100_000))
    assert 1000 < len(found) < 20_000


def test_v5_files_that_share_their_chunks_are_not_gathered_for_ever() -> None:
    sketch = Sketch(4096)
    sketch.root.children = {b"%04d" % n: sketch.file(b"%d" % n * 3000) for n in range(300)}
    data = bytearray(v5_bootstrap(sketch))
    for row in range(2, 302):
        (place,) = struct.unpack_from("<I", data, 8192 + 4 * row - 4)
        struct.pack_into("<I", data, place * 8 + 96, (len(data) - place * 8 - 144) // 80)
    image = Bootstrap.decode(data)
    with pytest.raises(BadImage, match="chunks that other inodes have"):
        image.chunks(0)


def test_a_huge_file_costs_what_is_asked_of_it() -> None:
    data = bytearray(v5_bootstrap(gallery()))
    image = Bootstrap.decode(data)
    nid = image.lookup(image.root, b"sparse") or 0
    (place,) = struct.unpack_from("<I", data, 8192 + 4 * nid - 4)
    struct.pack_into("<Q", data, place * 8 + 64, 1 << 62)
    extents = Bootstrap.decode(data).extents(nid, 1 << 40, 1 << 61)
    assert [(one.chunk, one.size) for one in extents] == [(None, (1 << 61) - (1 << 40))]


@pytest.mark.parametrize("place", [0, 1 << 12, 1 << 20])
def test_a_file_said_to_be_huge_is_not_looked_through(place: int) -> None:
    sketch = Sketch(4096)
    sketch.root.children[b"file"] = sketch.file(b"x" * 5000)
    data = bytearray(sketch.bootstrap())
    image = Bootstrap.decode(data)
    nid = image.lookup(image.root, b"file") or 0
    start = tables.unpack_super(data).meta + nid * SLOT
    struct.pack_into("<Q", data, start + 8, (1 << 62) + place)
    image = Bootstrap.decode(data)
    with pytest.raises(BadImage):
        image.extents(nid, 0, 1 << 62)
    assert any("no room" in str(one) for one in findings(image))


def test_tables_that_claim_gigabytes_take_no_memory() -> None:
    data = bytearray(gallery().bootstrap())
    claims = [(1152 + 44, "<I", 1 << 31), (1152 + 32, "<Q", 80 << 40), (1024 + 86, "<H", 0xFFFF)]
    old = bytearray(v5_bootstrap(gallery()))
    old_claims = [(56, "<I", 1 << 31), (60, "<I", 1 << 31), (64, "<I", 0xFFFFFFFF)]
    tracemalloc.start()
    try:
        for good, changes in ((data, claims), (old, old_claims)):
            for place, layout, value in changes:
                changed = bytearray(good)
                struct.pack_into(layout, changed, place, value)
                attempt(ask_bootstrap, bytes(changed))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_chunk_may_say_any_number_for_its_blob() -> None:
    data = bytearray(gallery().bootstrap())
    start, count = tables.unpack_super(data).chunks
    for row in range(count):
        struct.pack_into("<I", data, start + row * 80 + 32, 0xFFFF_FFFF - row % 2)
        struct.pack_into("<I", data, start + row * 80 + 72, 0xFFFF_FFFF)
    image = Bootstrap.decode(data)
    nid = image.lookup(image.root, b"shared") or 0
    with pytest.raises(BadImage, match="no chunk"):
        image.extents(nid, 0, 10)
    assert len(image.chunks(0)) == 0


@pytest.mark.parametrize(
    ("high", "message"), [(0, "device 0"), (0xFF, "device 255"), (3, "device 3")]
)
def test_a_chunk_on_no_device_is_refused(high: int, message: str) -> None:
    sketch = Sketch()
    sketch.root.children[b"f"] = sketch.file(b"data")
    data = bytearray(sketch.bootstrap())
    image = Bootstrap.decode(data)
    nid = image.lookup(image.root, b"f") or 0
    place = tables.unpack_super(data).meta + nid * SLOT + EXTENDED.size
    INDEX.pack_into(data, place, 0, high, 0)
    image = Bootstrap.decode(data)
    with pytest.raises(BadImage, match=message):
        image.extents(nid, 0, 4)
    assert any("on device" in str(one) for one in findings(image))
