"""What the encoder refuses, and that it says where."""

from __future__ import annotations

import io
import stat
from collections.abc import Callable
from dataclasses import replace

import pytest

from chunkstore import Blob, Chunk, Codec, Digest
from fixtures.reading import shown
from fixtures.sketch import Sketch, chunk_numbers
from rafs import BadSource, Bootstrap
from rafs.tree import Node
from rafs.v6 import BlobEntry, ChunkList, encode


def _xattr(name: bytes, value: bytes) -> Callable[[Sketch], None]:
    def change(sketch: Sketch) -> None:
        sketch.root.children[b"f"].xattrs[name] = value

    return change


def _child(name: bytes, node: Node) -> Callable[[Sketch], None]:
    def change(sketch: Sketch) -> None:
        sketch.root.children[name] = node

    return change


def _many_xattrs(sketch: Sketch) -> None:
    sketch.root.children[b"f"].xattrs = {b"user.%d" % n: b"v" * 65000 for n in range(5)}


def _missing_chunk(sketch: Sketch) -> None:
    sketch.root.children[b"f"].chunks = chunk_numbers()


def _unknown_chunk(sketch: Sketch) -> None:
    sketch.root.children[b"f"].chunks = chunk_numbers(7)


def _directory_twice(sketch: Sketch) -> None:
    sketch.root.children[b"e"] = sketch.root.children[b"d"]


def _loop(sketch: Sketch) -> None:
    sketch.root.children[b"d"].children[b"up"] = sketch.root


_LINK = stat.S_IFLNK | 0o777
_REFUSED = [
    (_xattr(b"user.big", b"v" * 65536), "/f: xattr user.big: a value of 65536 bytes"),
    (_xattr(b"user.", b""), "/f: xattr user.: EROFS has no prefix"),
    (_xattr(b"system.nfs4_acl", b""), "/f: xattr system.nfs4_acl: EROFS has no prefix"),
    (_xattr(b"user." + b"n" * 251, b""), "a name of 256 bytes"),
    (_xattr(b"user.a\0b", b""), "a NUL"),
    (_many_xattrs, "/f: 325.* bytes of xattrs"),
    (_missing_chunk, "/f: 0 chunks where 1 belong"),
    (_unknown_chunk, "/f: chunk 7 is not in the list"),
    (_child(b"n" * 256, Node(stat.S_IFREG)), "/: a name that is none"),
    (_child(b"a/b", Node(stat.S_IFREG)), "/: a name that is none"),
    (_child(b"a\0b", Node(stat.S_IFREG)), "/: a name that is none"),
    (_child(b"", Node(stat.S_IFREG)), "/: a name that is none"),
    (_child(b"..", Node(stat.S_IFDIR)), "/: a name that is none"),
    (_child(b".", Node(stat.S_IFREG)), "/: a name that is none"),
    (_child(b"l", Node(_LINK)), "/l: a target of 0 bytes"),
    (_child(b"l", Node(_LINK, target=b"t" * 4096)), "/l: a target of 4096 bytes"),
    (_child(b"x", Node(0o644)), "/x: mode 0o644"),
    (_child(b"t", Node(stat.S_IFREG, mtime_nsec=10**9)), "/t: .* 1000000000 ns"),
    (_child(b"u", Node(stat.S_IFREG, uid=2**32)), "/u: .*owner"),
    (_child(b"d", Node(stat.S_IFCHR, rdev=1 << 62)), "/d: .*device"),
    (_directory_twice, "/[de]: a directory under two names"),
    (_loop, "/d/up: a directory under two names"),
]


@pytest.mark.parametrize(("change", "message"), _REFUSED, ids=[row[1] for row in _REFUSED])
def test_what_has_no_place_in_an_image_is_named(
    change: Callable[[Sketch], None], message: str
) -> None:
    sketch = Sketch()
    sketch.root.children = {b"f": sketch.file(b"data"), b"d": Node(stat.S_IFDIR | 0o755)}
    change(sketch)
    with pytest.raises(BadSource, match=message):
        sketch.bootstrap()


def test_the_largest_xattr_is_kept() -> None:
    sketch = Sketch()
    sketch.root.xattrs = {b"user.large": b"v" * 65535, b"user." + b"n" * 250: b""}
    image = Bootstrap.decode(sketch.bootstrap())
    assert shown(image, {})[b""].xattrs == sketch.root.xattrs


_CHUNK = Chunk(0, Digest.of(b"x"), 0, 4096, 0, 10, Codec.LZ4)
_ENTRY = BlobEntry(Blob("a" * 64, 4096, 10, 1), 4096, Codec.LZ4)


def _encode(chunks: ChunkList, *entries: BlobEntry, chunk_size: int = 4096) -> bytes:
    out = io.BytesIO()
    encode(Node(stat.S_IFDIR), entries, chunks, out, chunk_size=chunk_size)
    return out.getvalue()


def _list(*chunks: Chunk) -> ChunkList:
    made = ChunkList()
    for chunk in chunks:
        made.append(0, chunk)
    return made


@pytest.mark.parametrize(
    ("chunks", "entries", "message"),
    [
        (_list(_CHUNK), [], "blob that is not there"),
        (_list(_CHUNK), [replace(_ENTRY, codec=Codec.ZSTD)], "in LZ4, not ZSTD"),
        (_list(_CHUNK, _CHUNK), [_ENTRY], "same index"),
        (_list(), [replace(_ENTRY, chunk_size=8192)], "chunk size 8192"),
        (_list(), [replace(_ENTRY, blob=Blob("a", 0, 0, 0))], "empty"),
        (_list(), [replace(_ENTRY, blob=Blob("a" * 65, 4096, 1, 1))], "id over 64"),
        (_list(), [_ENTRY] * 255, "255 blobs, 254 fit"),
        (_list(), [replace(_ENTRY, blob=Blob("a", 1 << 44, 1, 1))], "more than 16 TiB"),
    ],
)
def test_blobs_that_do_not_fit_are_refused(
    chunks: ChunkList, entries: list[BlobEntry], message: str
) -> None:
    with pytest.raises(BadSource, match=message):
        _encode(chunks, *entries)


def test_a_chunk_off_a_block_is_refused() -> None:
    with pytest.raises(BadSource, match="not on a block"):
        _list(replace(_CHUNK, offset=100))


@pytest.mark.parametrize("chunk_size", [0, 2048, 5000, 32 << 20])
def test_a_chunk_size_outside_the_format_is_refused(chunk_size: int) -> None:
    with pytest.raises(BadSource, match="chunk size"):
        _encode(_list(), chunk_size=chunk_size)
