"""RAFS v5 images, made by a builder that is not ours."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkstore import Algorithm, Codec
from fixtures.foreign import v5_bootstrap
from fixtures.gallery import gallery
from fixtures.reading import shown
from fixtures.sketch import Sketch
from rafs import BadImage, Bootstrap, Kind, Unsupported, WrongKind
from rafs.tree import Node


def _decoded(sketch: Sketch) -> dict[str, bytearray]:
    entries, _ = sketch.finish()
    return {e.blob.id: blob.decoded for e, blob in zip(entries, sketch.blobs, strict=True)}


@pytest.mark.parametrize("algorithm", Algorithm)
def test_v5_and_v6_of_one_tree_show_the_same(algorithm: Algorithm) -> None:
    sketch = gallery(algorithm)
    old = Bootstrap.decode(v5_bootstrap(sketch))
    new = Bootstrap.decode(sketch.bootstrap())
    assert (old.version, new.version) == (5, 6)
    found = {
        path: replace(one, nid=0, size=0) for path, one in shown(old, _decoded(sketch)).items()
    }
    assert found == {
        path: replace(one, nid=0, size=0) for path, one in shown(new, _decoded(sketch)).items()
    }
    assert old.inode_count == new.inode_count
    assert old.blobs[0].chunk_count == new.blobs[0].chunk_count
    assert old.algorithm is algorithm


def test_hard_links_are_one_inode() -> None:
    image = Bootstrap.decode(v5_bootstrap(gallery()))
    deep = image.lookup(image.root, b"deep")
    assert deep is not None
    assert image.lookup(deep, b"link") == image.lookup(image.root, b"shared")
    shared = image.inode(image.lookup(deep, b"link") or 0)
    assert (shared.nlink, shared.ino) == (2, shared.nid)


def test_dots_parents_and_kinds_are_told() -> None:
    image = Bootstrap.decode(v5_bootstrap(gallery()))
    deep = image.lookup(image.root, b"deep") or 0
    below = image.lookup(deep, "ä".encode() * 127) or 0
    assert (image.parent(below), image.parent(deep), image.parent(image.root)) == (deep, 1, 1)
    assert image.lookup(deep, b".") == deep
    kinds = {entry.name: entry.kind for entry in image.children(image.root)}
    assert kinds[b"-x"] is Kind.SOCKET
    assert kinds[b"deep"] is Kind.DIRECTORY


def test_a_listing_goes_on_after_any_cookie() -> None:
    image = Bootstrap.decode(v5_bootstrap(gallery()))
    listed = list(image.scan(image.root, 0))
    for place, (_, _, cookie) in enumerate(listed):
        assert list(image.scan(image.root, cookie)) == listed[place + 1 :]
    assert list(image.scan(image.root, 1 << 40)) == []


@settings(max_examples=30, deadline=None)
@given(st.sets(st.binary(min_size=1, max_size=8), max_size=60))
def test_every_name_is_found_by_bisection(raw: set[bytes]) -> None:
    names = {name.replace(b"/", b"_").replace(b"\0", b"_") for name in raw} - {b".", b".."}
    sketch = Sketch()
    sketch.root.children = {name: Node(0o100644) for name in names}
    image = Bootstrap.decode(v5_bootstrap(sketch))
    assert [name for name, _, _ in image.scan(image.root, 0)] == sorted(names)
    for name in names:
        assert image.lookup(image.root, name) is not None
        assert (image.lookup(image.root, name + b"+") is None) == (name + b"+" not in names)


def test_chunks_of_a_blob_are_found_by_number_and_by_offset() -> None:
    sketch = gallery()
    image = Bootstrap.decode(v5_bootstrap(sketch))
    for number, blob in enumerate(sketch.blobs):
        chunks = image.chunks(number)
        assert [chunk.digest for chunk in chunks] == [chunk.digest for chunk in blob.chunks]
        assert len(chunks) == len(blob.chunks)
        for chunk in blob.chunks:
            assert chunks.get(chunk.index) == chunks.at(chunk.stop - 1) == chunk


def test_what_to_prefetch_is_told() -> None:
    image = Bootstrap.decode(v5_bootstrap(gallery(), prefetch=[3, 1]))
    assert list(image.prefetch) == [3, 1]


def test_a_blob_without_a_name_gets_the_one_it_was_found_in() -> None:
    sketch = gallery()
    name = sketch.finish()[0][0].blob.id.encode()
    image = Bootstrap.decode(v5_bootstrap(sketch).replace(name, b"x" * 64), within="found")
    assert image.blobs[0].id == "found"
    assert next(iter(image.chunks(0))).size == 4096


def _patch(layout: str, place: int, *values: object) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into(layout, data, place, *values)


def _inode(number: int, layout: str, place: int, *values: object) -> Callable[[bytearray], None]:
    """Patch inode *number*'s bytes from *place* on."""

    def change(data: bytearray) -> None:
        offset = struct.unpack_from("<I", data, 8192 + 4 * number - 4)[0] * 8
        struct.pack_into(layout, data, offset + place, *values)

    return change


_REFUSED = [
    (_patch("<I", 4, 0x600), Unsupported, "RAFS version 0x600"),
    (_patch("<I", 4, 0x400), Unsupported, "RAFS version 0x400"),
    (_patch("<I", 8, 4096), Unsupported, "old variant"),
    (_patch("<I", 12, 5000), BadImage, "chunk size of 5000"),
    (_patch("<I", 12, 1 << 31), BadImage, "chunk size"),
    (_patch("<Q", 16, 0x3), BadImage, "codec flags"),
    (_patch("<Q", 16, 0xC), Unsupported, "no codec in 0xc, an old variant"),
    (_patch("<Q", 16, 0x1), Unsupported, "no digest in 0x1, an old variant"),
    (_patch("<Q", 16, 0xD | 0x80), BadImage, "codec flags"),
    (_patch("<Q", 24, 0), BadImage, "0 inodes"),
    (_patch("<Q", 24, 1 << 40), BadImage, "inodes"),
    (_patch("<Q", 32, 1 << 63), BadImage, "inode table"),
    (_patch("<Q", 32, 16), BadImage, "inode table at byte 16: overlaps"),
    (_patch("<Q", 48, 8192), BadImage, "overlaps"),
    (_patch("<I", 56, 1 << 31), BadImage, "inode table"),
    (_patch("<I", 60, 1 << 31), BadImage, "prefetch table"),
    (_patch("<I", 68, 1), Unsupported, "1 of 2 blobs, an old variant"),
    (_patch("<I", 68, 1 << 30), BadImage, "extended blob table"),
    (_inode(1, "<I", 60, 0o100644), Unsupported, "no root directory, an old variant"),
    (_inode(1, "<Q", 40, 7), Unsupported, "no root directory"),
    (_patch("<I", 8192, 0), BadImage, "inode 1"),
    (_patch("<I", 8192, 0xFFFFFFFF), BadImage, "inode 1"),
]


@pytest.mark.parametrize(("change", "error", "message"), _REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(
    change: Callable[[bytearray], None], error: type[BadImage], message: str
) -> None:
    data = bytearray(v5_bootstrap(gallery()))
    change(data)
    with pytest.raises(error, match=message) as caught:
        Bootstrap.decode(data)
    assert "at byte" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [(b"../../etc/shadow".ljust(64, b"/"), "no file name"), (b"\xff" * 64, "no text")],
)
def test_a_blob_whose_name_is_no_file_name_is_refused(name: bytes, message: str) -> None:
    sketch = gallery()
    known = sketch.finish()[0][0].blob.id.encode()
    data = v5_bootstrap(sketch).replace(known, name)
    with pytest.raises(BadImage, match=message):
        Bootstrap.decode(data)


@pytest.mark.parametrize(
    ("feature", "word"), [(0x8, "zran"), (0x40, "tarfs"), (0x80, "batch"), (0x100, "encrypted")]
)
def test_a_blob_of_a_kind_that_is_not_read_is_refused_by_name(feature: int, word: str) -> None:
    data = bytearray(v5_bootstrap(gallery()))
    (extended,) = struct.unpack_from("<Q", data, 72)
    struct.pack_into("<I", data, extended + 4, feature)
    with pytest.raises(Unsupported, match=word):
        Bootstrap.decode(data)


_DIRECTORY, _FILE, _LINK = 5, 7, 9
"""Rows of ``deep``, ``shared`` and ``symlink`` in the gallery."""


def _everything(image: Bootstrap) -> None:
    for entry in image.children(image.root):
        image.attributes(entry.nid)
        image.xattrs(entry.nid)
        if entry.kind is Kind.FILE:
            image.extents(entry.nid, 0, 1 << 62)
        if entry.kind is Kind.SYMLINK:
            image.target(entry.nid)
        if entry.kind is Kind.DIRECTORY:
            list(image.children(entry.nid))
            image.lookup(entry.nid, b"link")
            image.parent(entry.nid)


_DAMAGE = [
    (_inode(_DIRECTORY, "<I", 60, 0), "mode"),
    (_inode(_DIRECTORY, "<I", 92, 1), "children from inode 1"),
    (_inode(_DIRECTORY, "<I", 92, 0xFFFFFFFF), "children from"),
    (_inode(_DIRECTORY, "<I", 96, 0xFFFFFFFF), "children"),
    (_inode(_DIRECTORY, "<Q", 32, 100), "its parent is inode 100"),
    (_inode(_DIRECTORY, "<Q", 40, 2), "calls itself inode 2"),
    (_inode(_DIRECTORY, "<H", 100, 0), "a name that is none"),
    (_inode(_DIRECTORY, "<H", 100, 256), "a name that is none"),
    (_inode(_DIRECTORY, "<4s", 128, b"..\0\0"), "a name that is none"),
    (_inode(_DIRECTORY, "<4s", 128, b"a/bc"), "a name that is none"),
    (_inode(_FILE, "<Q", 40, 1 << 50), "calls itself"),
    (_inode(_FILE, "<Q", 64, 1 << 62), "no chunk, or two"),
    (_inode(_FILE, "<Q", 64, 1 << 63), "size"),
    (_inode(_FILE, "<I", 96, 0xFFFFFFFF), "4294967295 chunks"),
    (_inode(_FILE, "<I", 108, 10**9), "1000000000 ns"),
    (_inode(_FILE, "<Q", 136, 1 << 60), "xattrs that end behind"),
    (_inode(_FILE, "<I", 144, 0xFFFFFFFF), "an xattr that ends behind"),
    (_inode(_LINK, "<H", 102, 0), "a target of 0 bytes"),
    (_inode(_LINK, "<H", 102, 0xFFFF), "a target of|end of the file"),
]


@pytest.mark.parametrize(("change", "message"), _DAMAGE)
def test_a_damaged_inode_is_named_with_its_byte(
    change: Callable[[bytearray], None], message: str
) -> None:
    data = bytearray(v5_bootstrap(gallery()))
    change(data)
    image = Bootstrap.decode(data)
    with pytest.raises(BadImage, match=message) as caught:
        _everything(image)
    assert "at byte" in str(caught.value)


@pytest.mark.parametrize(
    ("place", "layout", "value", "message"),
    [
        (32, "<I", 9, "blob 9"),
        (36, "<I", 4, "encrypted"),
        (40, "<I", 0, "only blob|stored as"),
        (40, "<I", 1, "stored as"),
        (44, "<I", 0, "0 bytes at"),
        (44, "<I", 1 << 25, "33554432 bytes"),
        (48, "<Q", 1 << 60, "stored as"),
        (56, "<Q", 1 << 60, "bytes at"),
        (64, "<Q", 1, "no chunk, or two"),
        (72, "<I", 1 << 30, "number 1073741824"),
    ],
)
def test_a_damaged_chunk_is_named_with_its_byte(
    place: int, layout: str, value: int, message: str
) -> None:
    sketch = Sketch()
    sketch.root.children[b"f"] = sketch.file(b"x" * 5000)
    data = bytearray(v5_bootstrap(sketch))
    record = data.index(sketch.blobs[0].chunks[0].digest.raw)
    struct.pack_into(layout, data, record + place, value)
    image = Bootstrap.decode(data)
    with pytest.raises(BadImage, match=message) as caught:
        image.extents(2, 0, 5000)
    assert "at byte" in str(caught.value)


def test_questions_that_do_not_fit_the_kind_are_the_askers_fault() -> None:
    image = Bootstrap.decode(v5_bootstrap(gallery()))
    file = image.lookup(image.root, b"shared") or 0
    for ask in (
        lambda: image.lookup(file, b"x"),
        lambda: list(image.scan(file, 0)),
        lambda: image.target(file),
        lambda: image.extents(image.root, 0, 1),
    ):
        with pytest.raises(WrongKind):
            ask()


def test_a_codec_of_the_image_is_that_of_its_chunks() -> None:
    sketch = Sketch()
    sketch.root.children[b"f"] = sketch.file(b"x" * 5000)
    data = bytearray(v5_bootstrap(sketch, codec=Codec.ZSTD))
    record = data.index(sketch.blobs[0].chunks[0].digest.raw)
    struct.pack_into("<I", data, record + 36, 1)
    extents = Bootstrap.decode(data).extents(2, 0, 5000)
    assert [e.chunk.codec for e in extents if e.chunk] == [Codec.ZSTD, Codec.NONE]
