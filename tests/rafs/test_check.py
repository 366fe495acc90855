"""What a check finds in a bootstrap, and that it ends."""

from __future__ import annotations

import contextlib
import itertools
import stat
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkstore import Algorithm
from fixtures.foreign import in_digest_order, v5_bootstrap
from fixtures.gallery import gallery
from fixtures.sketch import Sketch
from rafs import BadImage, Bootstrap
from rafs import v6_tables as tables
from rafs.check import findings
from rafs.erofs import DEVICE_OFFSET, EXTENDED, SLOT, SUPER_OFFSET
from rafs.tree import Node


def _found(data: bytes | bytearray) -> list[str]:
    return [str(finding) for finding in itertools.islice(findings(Bootstrap.decode(data)), 1000)]


@pytest.mark.parametrize("algorithm", Algorithm)
def test_good_images_have_no_findings(algorithm: Algorithm) -> None:
    sketch = gallery(algorithm)
    assert _found(sketch.bootstrap(prefetch=[sketch.root])) == []
    assert _found(in_digest_order(sketch.bootstrap())) == []
    assert _found(v5_bootstrap(sketch, prefetch=[1, 3])) == []


def test_an_empty_image_has_no_findings() -> None:
    assert _found(Sketch().bootstrap()) == []
    assert _found(v5_bootstrap(Sketch())) == []


def test_a_directory_of_many_blocks_has_no_findings() -> None:
    sketch = Sketch()
    sketch.root.children = {b"%0200d" % number: Node(stat.S_IFREG | 0o644) for number in range(500)}
    assert _found(sketch.bootstrap()) == []
    assert _found(v5_bootstrap(sketch)) == []


_SKETCH = gallery()
_V6 = _SKETCH.bootstrap(prefetch=[_SKETCH.root])
_V5 = v5_bootstrap(_SKETCH)
Change = Callable[[bytearray], None]


def _at(place: int, layout: str, *values: object) -> Change:
    return lambda data: struct.pack_into(layout, data, place, *values)


def _nid(path: bytes) -> int:
    image = Bootstrap.decode(_V6)
    nid = image.root
    for name in path.split(b"/") if path else []:
        nid = image.lookup(nid, name) or 0
    return nid


def _inode(path: bytes) -> int:
    return int(tables.unpack_super(_V6).meta) + _nid(path) * SLOT


def _entry(name: bytes) -> int:
    """Return the byte of the entry of *name* in the root."""
    names = sorted([b".", b"..", *_SKETCH.root.children])
    return _V6.index(b"".join(names)) - 12 * len(names) + 12 * names.index(name)


def _v6_row(place: int, layout: str, *values: object) -> Change:
    """Patch the first row of the chunk table."""
    start = tables.unpack_super(_V6).chunks[0]
    return _at(start + place, layout, *values)


_V6_FAULTS: list[tuple[str, Change, str]] = [
    ("checksum", _at(SUPER_OFFSET + 4, "<I", 1), "superblock at byte 1024: checksum"),
    ("device count", _at(SUPER_OFFSET + 86, "<H", 1), "devices: 1, not 2"),
    ("device slot", _at(SUPER_OFFSET + 88, "<H", 12), "device slot: 12, not 11"),
    ("device name", _at(DEVICE_OFFSET, "<64s", b"other"), "device 0 at byte 1408: is not called"),
    ("device size", _at(DEVICE_OFFSET + 64, "<I", 1), "device 0 at byte 1408: 1 blocks"),
    ("device twice", lambda data: _twice(data), "listed twice"),
    ("chunk off block", _v6_row(56, "<Q", 5), "not on a block"),
    ("chunk too large", _v6_row(44, "<I", 1 << 30), "1073741824 bytes at"),
    ("chunk of no blob", _v6_row(32, "<I", 99), "of blob 99"),
    ("chunk overlap", _v6_row(44, "<I", 5000), "in another"),
    ("chunk twice", _v6_row(72, "<I", 1), "comes twice"),
    ("chunk missing", _v6_row(32, "<I", 1), "no chunk at byte 0 of blob 0|comes twice"),
    ("links", _at(_inode(b"shared") + 44, "<I", 3), "3 links, and 2 names"),
    ("directory links", _at(_inode(b"deep") + 44, "<I", 9), "9 links, and 1 directories"),
    ("mode", _at(_inode(b"fifo") + 4, "<H", stat.S_IFSOCK), "is of kind 5"),
    ("kind", _at(_entry(b"fifo") + 10, "<B", 1), "is of kind 1"),
    ("loop", _at(_entry(b"deep"), "<Q", _nid(b"")), "names once more"),
    ("two parents", _at(_entry(b"fifo"), "<Q", _nid(b"deep")), "names once more"),
    ("inode in inode", _at(_entry(b"fifo"), "<Q", _nid(b"deep") + 1), "inode"),
    ("device layout", _at(_inode(b"block"), "<H", 5), "layout 2 of a device"),
    ("flat file", _at(_inode(b"shared"), "<H", 1), "layout 0"),
    ("chunk format", _at(_inode(b"shared") + 16, "<I", 0x60), "chunk format 0x60"),
    ("no indexes", _at(_inode(b"shared") + 16, "<I", 0), "chunk format 0x0"),
    ("run", _at(_inode(b"sparse") + 16, "<I", 0x3F), "does not go on"),
    ("size", _at(_inode(b"shared") + 8, "<Q", 1 << 62), "no room"),
    ("overlap by size", _at(_inode(b"shared") + 8, "<Q", 4096 * 200), "inode"),
    ("tail crosses", _at(_inode(b"symlink") + 8, "<Q", 4090), "crosses a block"),
    ("target empty", _at(_inode(b"symlink") + 8, "<Q", 0), "nothing in it"),
    ("blocks outside", _at(_inode(b"target") + 16, "<I", 1 << 30), "outside"),
    ("blocks taken", _at(_inode(b"target") + 16, "<I", 1), "taken"),
    ("xattr units", _at(_inode(b"shared") + 2, "<H", 0xFFFF), "inode"),
    ("shared xattrs", _at(_inode(b"shared") + EXTENDED.size + 4, "<B", 1), "shared"),
    ("xattr padding", lambda data: _cut_xattr(data), "or has no name"),
    ("empty file", _at(_inode(b"deep/!before") + 16, "<I", 0x80), "chunk format 0x80"),
    ("prefetch", lambda data: _prefetch(data), "prefetch table at byte 0: inode 77777"),
]


def _twice(data: bytearray) -> None:
    name = data[DEVICE_OFFSET : DEVICE_OFFSET + 64]
    data[DEVICE_OFFSET + 128 : DEVICE_OFFSET + 192] = name
    start = tables.unpack_super(data).blobs[0]
    data[start + 256 : start + 320] = name


def _cut_xattr(data: bytearray) -> None:
    """Turn the last xattr of a file into zeros, which the kernel does not take for padding."""
    place = data.index(b"empty", _inode(b"shared")) - 4
    data[place : place + 12] = bytes(12)


def _prefetch(data: bytearray) -> None:
    struct.pack_into("<I", data, tables.unpack_super(data).prefetch[0], 77777)


@pytest.mark.parametrize(
    ("change", "message"), [row[1:] for row in _V6_FAULTS], ids=[row[0] for row in _V6_FAULTS]
)
def test_a_fault_in_v6_is_found_and_named(change: Change, message: str) -> None:
    data = bytearray(_V6)
    change(data)
    found = _found(data)
    assert any(part in line for line in found for part in message.split("|")), found
    assert all(" at byte " in line for line in found)


def _names(order: list[bytes]) -> Change:
    """Put names of the root in another order, or others in their place, of the same lengths."""

    def change(data: bytearray) -> None:
        text = b"".join(name for name in sorted([b".", b"..", *_SKETCH.root.children]))
        place = data.index(text)
        data[place : place + len(text)] = b"".join(order)

    return change


_NAME_FAULTS: list[tuple[bytes, bytes, str]] = [
    (b"fifo", b"zzzz", "behind b'zzzz'"),
    (b"fifo", b"deep", "b'deep' behind b'deep'"),
    (b"fifo", b"f/fo", "name"),
    (b"fifo", b"f\0fo", "name"),
    (b"..", b".a", "no b'..' in it"),
    (b".", b",", "no b'.' in it"),
]


@pytest.mark.parametrize(("old", "new", "message"), _NAME_FAULTS)
def test_a_name_that_is_none_or_not_in_order_is_found(old: bytes, new: bytes, message: str) -> None:
    names = sorted([b".", b"..", *_SKETCH.root.children])
    data = bytearray(_V6)
    _names([new if name == old else name for name in names])(data)
    found = _found(data)
    assert any(message in line for line in found), found


def test_a_parent_that_is_not_is_found() -> None:
    data = bytearray(_V6)
    deep = _inode(b"deep")
    place = data.index(struct.pack("<Q", _nid(b"")), deep)
    struct.pack_into("<Q", data, place, _nid(b"deep"))
    assert any("b'..' is inode" in line for line in _found(data))


def _row(number: int, place: int, layout: str, *values: object) -> Change:
    def change(data: bytearray) -> None:
        offset = struct.unpack_from("<I", data, 8192 + 4 * number - 4)[0] * 8
        struct.pack_into(layout, data, offset + place, *values)

    return change


_V5_FAULTS: list[tuple[str, Change, str]] = [
    ("links", _row(7, 88, "<I", 5), "5 links, and 2 names"),
    ("directory links", _row(5, 88, "<I", 5), "5 links, and 1 directories"),
    ("parent", _row(5, 32, "<Q", 2), "is not in inode 1"),
    ("order", _row(6, 128, "<4s", b"aaaa"), "behind"),
    ("children", _row(5, 92, "<I", 6), "another has, too"),
    ("more children", _row(5, 96, "<I", 5), "children"),
    ("same record", lambda data: _same_record(data), "calls itself inode 2"),
    ("same place", _row(7, 96, "<I", 4), "in one place"),
    ("xattr name", lambda data: data.__setitem__(slice(*_xattr(data)), b"usurped"), "xattr"),
    ("chunk size", lambda data: _chunk(data, 44, "<I", 1 << 30), "1073741824 bytes"),
    ("chunk overlap", lambda data: _chunk(data, 56, "<Q", 4090), "before"),
]


def _same_record(data: bytearray) -> None:
    """Let two rows of the inode table be one record."""
    struct.pack_into("<I", data, 8192 + 8, *struct.unpack_from("<I", data, 8192 + 4))


def _xattr(data: bytearray) -> tuple[int, int]:
    place = data.index(b"user.empty")
    return place, place + 7


def _chunk(data: bytearray, place: int, layout: str, value: int) -> None:
    record = data.index(_SKETCH.blobs[0].chunks[1].digest.raw)
    struct.pack_into(layout, data, record + place, value)


@pytest.mark.parametrize(
    ("change", "message"), [row[1:] for row in _V5_FAULTS], ids=[row[0] for row in _V5_FAULTS]
)
def test_a_fault_in_v5_is_found_and_named(change: Change, message: str) -> None:
    data = bytearray(_V5)
    change(data)
    found = _found(data)
    assert any(message in line for line in found), found
    assert all(" at byte " in line for line in found)


def test_what_is_to_be_prefetched_must_be_there() -> None:
    assert _found(v5_bootstrap(_SKETCH, prefetch=[999])) == [
        "prefetch table at byte 0: inode 999 has no name"
    ]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([_V5, _V6]),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 7)), min_size=1, max_size=3),
)
def test_a_check_of_flipped_bits_ends_without_an_exception(
    good: bytes, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(good)
    for place, bit in flips:
        data[place % len(data)] ^= 1 << bit
    with contextlib.suppress(BadImage):
        _found(data)
