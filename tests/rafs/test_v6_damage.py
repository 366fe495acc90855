"""Bootstraps that were cut, flipped or made up: one clear error, in bounded time."""

from __future__ import annotations

import contextlib
import itertools
import stat
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.reading import walk
from fixtures.sketch import Sketch
from rafs import BadImage, Bootstrap, Unsupported
from rafs import v6_tables as tables
from rafs.erofs import DIRENT, EXTENDED, INDEX, SLOT, SUPER_OFFSET
from rafs.tree import Node


def _sketch() -> Sketch:
    sketch = Sketch(4096)
    sketch.root.children = {
        b"file": sketch.file(b"a" * 9000, blob=0),
        b"other": sketch.file(b"b" * 5000, blob=1),
        b"link": Node(stat.S_IFLNK | 0o777, target=b"target"),
        b"long": Node(stat.S_IFLNK | 0o777, target=b"t" * 4095),
        b"folder": Node(stat.S_IFDIR | 0o755),
    }
    sketch.root.xattrs = {b"user.a": b"value", b"security.capability": b"c" * 20}
    sketch.root.children[b"folder"].children = {
        b"%060d" % number: Node(stat.S_IFREG | 0o644) for number in range(80)
    }
    return sketch


_GOOD = _sketch().bootstrap(prefetch=[])


def _everything(image: Bootstrap) -> list[object]:
    """Ask all that can be asked, a bounded number of times."""
    found: list[object] = [image.blobs, image.prefetch]
    for path, nid in itertools.islice([(b"", image.root), *_few(image)], 300):
        mode, _, _, _, _, size, *_ = image.attributes(nid)
        found += [path, image.attributes(nid), image.has_xattrs(nid), image.xattrs(nid)]
        if stat.S_ISDIR(mode):
            found += [image.lookup(nid, b"folder"), image.lookup(nid, b"zzz"), image.parent(nid)]
        if stat.S_ISLNK(mode):
            found.append(image.target(nid))
        if stat.S_ISREG(mode):
            found += [image.extents(nid, 0, 20_000), image.extents(nid, size - 5, size)]
            found += itertools.islice(image.file_chunks(nid), 10)
    for blob in range(len(image.blobs)):
        found += [len(image.chunks(blob)), list(itertools.islice(image.chunks(blob), 10))]
    return found


def _few(image: Bootstrap) -> list[tuple[bytes, int]]:
    return list(itertools.islice(walk(image), 300))


def test_cut_at_every_byte_it_is_refused_or_right() -> None:
    sketch = _sketch()
    del sketch.root.children[b"folder"], sketch.root.children[b"long"]
    good = memoryview(sketch.bootstrap())
    expected = _everything(Bootstrap.decode(good))
    right = 0
    for size in range(len(good)):
        with contextlib.suppress(BadImage):
            assert _everything(Bootstrap.decode(good[:size])) == expected
            right += 1
    # Only what pads the last block may be missing.
    assert right < 4096


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(SUPER_OFFSET, len(_GOOD) - 1), st.integers(0, 7)),
        min_size=1,
        max_size=8,
    )
)
def test_flipped_bits_give_an_answer_or_a_bad_image(flips: list[tuple[int, int]]) -> None:
    data = bytearray(_GOOD)
    for place, bit in flips:
        data[place] ^= 1 << bit
    with contextlib.suppress(BadImage):
        _everything(Bootstrap.decode(data))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_bytes_in_the_inodes_give_an_answer_or_a_bad_image(data: st.DataObject) -> None:
    bootstrap = bytearray(_GOOD)
    start = _offset(b"") + data.draw(st.integers(0, 2000))
    junk = data.draw(st.binary(min_size=1, max_size=200))
    bootstrap[start : start + len(junk)] = junk
    with contextlib.suppress(BadImage):
        _everything(Bootstrap.decode(bytes(bootstrap)))


@given(st.binary(max_size=6000))
def test_made_up_bytes_are_a_bad_image(data: bytes) -> None:
    with pytest.raises(BadImage):
        Bootstrap.decode(data)


def _offset(path: bytes) -> int:
    """Return the byte where the inode of *path* starts."""
    image = Bootstrap.decode(_GOOD)
    nid = image.root
    for name in path.split(b"/") if path else []:
        found = image.lookup(nid, name)
        assert found is not None
        nid = found
    return int(tables.unpack_super(_GOOD).meta) + nid * SLOT


def _patched(layout: str, place: int, *values: object) -> Bootstrap:
    data = bytearray(_GOOD)
    struct.pack_into(layout, data, place, *values)
    return Bootstrap.decode(data)


def _root_names() -> int:
    """Return the byte of the first entry of the root, which is inline behind its xattrs."""
    return _GOOD.index(struct.pack("<H", DIRENT.size * 7), _offset(b"")) - 8


_SUPER = [
    (SUPER_OFFSET, "<I", 1, "magic"),
    (SUPER_OFFSET + 12, "<B", 9, "blocks of 2\\^9"),
    (SUPER_OFFSET + 14, "<H", 65535, "root"),
    (SUPER_OFFSET + 40, "<I", 1 << 31, "root"),
    (SUPER_OFFSET + 80, "<I", 0x10, "not RAFS v6"),
    (tables.EXT_OFFSET, "<Q", 0, "codec flags"),
    (tables.EXT_OFFSET, "<Q", 0x3, "codec flags"),
    (tables.EXT_OFFSET, "<Q", 0x1, "digest flags"),
    (tables.EXT_OFFSET, "<Q", 0x205, "tarfs"),
    (tables.EXT_OFFSET + 8, "<Q", 1 << 63, "blob table"),
    (tables.EXT_OFFSET + 16, "<I", 257, "blob table"),
    (tables.EXT_OFFSET + 16, "<I", 0xFFFF_FF00, "blob table"),
    (tables.EXT_OFFSET + 20, "<I", 5000, "chunk size"),
    (tables.EXT_OFFSET + 24, "<Q", 1 << 40, "chunk table"),
    (tables.EXT_OFFSET + 32, "<Q", (1 << 64) - 80, "chunk table"),
    (tables.EXT_OFFSET + 40, "<QI", (4096, 0xFFFF_FFFC), "prefetch table"),
    (4096, "<64s", b"../../etc/passwd", "no file name"),
    (4096, "<64s", b"\xff" * 64, "blob 0"),
    (4096 + 64, "<I", 5, "calls itself blob 5"),
    (4096 + 72, "<I", 1 << 25, "33554432 chunks"),
    (4096 + 76, "<I", 9, "blob 0"),
    (4096 + 84, "<I", tables.ENCRYPTED, "encrypted"),
    (4096 + 96, "<Q", 1 << 50, "blob 0|bytes"),
]


@pytest.mark.parametrize(("place", "layout", "value", "message"), _SUPER)
def test_a_broken_table_is_named_with_its_byte(
    place: int, layout: str, value: object, message: str
) -> None:
    with pytest.raises(BadImage, match=message) as caught:
        _patched(layout, place, *(value if isinstance(value, tuple) else (value,)))
    assert "at byte" in str(caught.value)


def _lookup_in_root(image: Bootstrap) -> object:
    return image.lookup(image.root, b"file"), list(image.scan(image.root, 0))


def _read_file(image: Bootstrap) -> object:
    nid = image.lookup(image.root, b"file")
    assert nid is not None
    return image.extents(nid, 0, 1 << 62)


def _read_link(image: Bootstrap) -> object:
    nid = image.lookup(image.root, b"long")
    assert nid is not None
    return image.target(nid)


def _root_xattrs(image: Bootstrap) -> object:
    return image.xattrs(image.root)


def _list_folder(image: Bootstrap) -> object:
    nid = image.lookup(image.root, b"folder")
    assert nid is not None
    return list(image.children(nid))


_INODES: list[tuple[int, str, object, Callable[[Bootstrap], object], str]] = [
    (_offset(b"file"), "<H", 0x3, _read_file, "inode .*format|no chunk indexes"),
    (_offset(b"file"), "<H", 0x7, _read_file, "format"),
    (_offset(b"file") + 4, "<H", 0o30644, _read_file, "mode"),
    (_offset(b"file") + 8, "<Q", 1 << 63, _read_file, "size"),
    (_offset(b"file") + 8, "<Q", 1 << 61, _read_file, "chunk index"),
    (_offset(b"file") + 40, "<I", 10**9, _read_file, "1000000000 ns"),
    (_offset(b"file") + 64, "<HHI", (0, 99, 0), _read_file, "device 99"),
    (_offset(b"file") + 64, "<HHI", (0, 0, 0), _read_file, "device 0"),
    (_offset(b"file") + 64, "<HHI", (77, 1, 77), _read_file, "no chunk at byte"),
    (_offset(b"long") + 16, "<I", 1 << 30, _read_link, "data up to byte"),
    (_offset(b"long") + 8, "<Q", 5000, _read_link, "target of 5000"),
    (_offset(b"long") + 8, "<Q", 0, _read_link, "target of 0"),
    (_offset(b"folder") + 16, "<I", 1 << 30, _list_folder, "data up to byte"),
    (_offset(b"folder") + 8, "<Q", 1 << 62, _list_folder, "data up to byte"),
    (_offset(b"folder") + 8, "<Q", 0, _list_folder, "no entries"),
    (_offset(b"") + 2, "<H", 0xFFFF, _root_xattrs, "xattrs of inode"),
    (_offset(b"") + 64 + 4, "<B", 255, _root_xattrs, "255 shared"),
    (_offset(b"") + 64 + 4, "<B", 1, _root_xattrs, "shared xattr"),
    (_offset(b"") + 64 + 12, "<BB", (4, 9), _root_xattrs, "prefix 9"),
    (_offset(b"") + 64 + 14, "<H", 0xFFFF, _root_xattrs, "65535 bytes"),
    (_root_names() + 8, "<H", 0, _lookup_in_root, "names from byte 0"),
    (_root_names() + 8, "<H", 13, _lookup_in_root, "names from byte 13"),
    (_root_names() + 8, "<H", 4092, _lookup_in_root, "names from byte 4092"),
    (_root_names() + 20, "<H", 60000, _lookup_in_root, "out of order|a name from"),
    (_root_names() + 5 * 12 + 8, "<H", 1, _lookup_in_root, "out of order|a name from"),
    (_root_names() + 2 * 12, "<Q", 1 << 60, _lookup_in_root, "outside the file"),
    (_root_names() + 10, "<B", 8, _lookup_in_root, "kind"),
    (_root_names() + 7 * 12 + 3, "<B", 0x2F, _lookup_in_root, "a name"),
]


@pytest.mark.parametrize(("place", "layout", "value", "ask", "message"), _INODES)
def test_a_broken_inode_is_named_with_its_byte(
    place: int, layout: str, value: object, ask: Callable[[Bootstrap], object], message: str
) -> None:
    values = value if isinstance(value, tuple) else (value,)
    with pytest.raises(BadImage, match=message) as caught:
        ask(_patched(layout, place, *values))
    assert "at byte" in str(caught.value)


def test_a_directory_inside_itself_does_not_end_the_program() -> None:
    data = bytearray(_GOOD)
    image = Bootstrap.decode(_GOOD)
    folder = image.lookup(image.root, b"folder")
    assert folder is not None
    place = data.index(struct.pack("<Q", folder), _offset(b"") + EXTENDED.size)
    struct.pack_into("<Q", data, place, image.root)
    looped = Bootstrap.decode(data)
    assert looped.lookup(looped.root, b"folder") == looped.root


def test_a_compact_inode_has_the_time_of_the_build() -> None:
    data = bytearray(_GOOD)
    struct.pack_into("<QI", data, SUPER_OFFSET + 24, 1234, 56)
    place = _offset(b"link")
    struct.pack_into(
        "<HHHHIIIIHHI", data, place, 0 | 2 << 1, 0, stat.S_IFLNK | 0o777, 3, 5, 0, 0, 9, 70, 80, 0
    )
    data[place + 32 : place + 37] = b"other"
    image = Bootstrap.decode(data)
    nid = image.lookup(image.root, b"link")
    assert nid is not None
    inode = image.inode(nid)
    assert (inode.nlink, inode.uid, inode.gid) == (3, 70, 80)
    assert (inode.mtime, inode.mtime_nsec) == (1234, 56)
    assert image.target(nid) == b"other"


def test_shared_xattrs_are_read() -> None:
    sketch = Sketch()
    sketch.root.children[b"f"] = Node(stat.S_IFREG, xattrs={b"user.a": b""})
    data = bytearray(sketch.bootstrap())
    shared = len(data)
    entry = struct.pack("<BBH", 3, 6, 2) + b"abcde"
    data += bytes(4) + entry + bytes(4096 - 4 - len(entry))
    struct.pack_into("<I", data, SUPER_OFFSET + 44, shared // 4096)
    image = Bootstrap.decode(data)
    nid = image.lookup(image.root, b"f")
    assert nid is not None
    body = tables.unpack_super(data).meta + nid * SLOT + EXTENDED.size
    struct.pack_into("<IBxxxxxxxII", data, body, 0, 2, 1, 1)
    assert image.xattrs(nid) == {b"security.abc": b"de"}


def test_tables_that_naiad_cannot_read_are_unsupported_not_broken() -> None:
    with pytest.raises(Unsupported):
        _patched("<I", 4096 + 84, tables.ZRAN)


def test_chunk_indexes_have_their_place() -> None:
    assert INDEX.unpack_from(_GOOD, _offset(b"other") + EXTENDED.size) == (0, 2, 0)
