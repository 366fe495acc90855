"""The tail of a blob, read back by its table of contents and field by field."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkstore import Algorithm, Chunk, Codec, Digest
from rafs import BadSource, toc
from rafs.blobtail import CI, CI_HEADER, CI_MAGIC, encode_blob_tail, tar_header


@st.composite
def _chunks(draw: st.DrawFn) -> list[Chunk]:
    chunks, offset, stored = [], 0, 0
    sizes = st.sampled_from([1, 4096, 5000, 1 << 20, (1 << 20) + 1, 16 << 20]) | st.integers(
        1, 16 << 20
    )
    for index, size in enumerate(draw(st.lists(sizes, min_size=1, max_size=20))):
        coded = draw(st.booleans()) and size > 1
        stored_size = draw(st.integers(1, size - 1)) if coded else size
        digest = Digest.of(index.to_bytes(4, "little"))
        codec = Codec.ZSTD if coded else Codec.NONE
        chunks.append(Chunk(index, digest, offset, size, stored, stored_size, codec))
        offset += -(-size // 4096) * 4096 + 4096 * draw(st.integers(0, 1 << 20))
        stored += stored_size + draw(st.integers(0, 1 << 20))
    return chunks


def _unpacked(entry: bytes) -> tuple[int, int, int, int]:
    """Return decoded offset and size, stored offset and size, as the format describes them."""
    decoded, stored = CI.unpack(entry)
    return (
        decoded & 0x0FFF_FFFF_F000,
        (decoded >> 44 | (decoded & 0xF00) << 12) + 1,
        stored & 0xFF_FFFF_FFFF,
        (stored >> 44 | (stored & 0xF00_0000_0000) >> 20) + 1,
    )


@given(_chunks())
def test_every_part_is_where_the_table_of_contents_says(chunks: list[Chunk]) -> None:
    data_size = 12_345
    out = bytearray()
    tail = encode_blob_tail(chunks, data_size, out.extend)
    file = bytes(data_size) + out

    def read(start: int, stop: int) -> bytes:
        return file[start:stop]

    parts = {entry.name: entry for entry in toc.contents(len(file), read)}
    assert list(parts) == ["image.blob", "blob.meta", "blob.meta.header", "blob.digest"]
    content = {
        name: file[entry.offset : entry.offset + entry.stored_size] for name, entry in parts.items()
    }
    for name in ("blob.meta", "blob.meta.header", "blob.digest"):
        assert hashlib.sha256(content[name]).digest() == parts[name].digest
    listed = [
        _unpacked(content["blob.meta"][place : place + 16])
        for place in range(0, len(content["blob.meta"]), 16)
    ]
    assert listed == [(c.offset, c.size, c.stored_offset, c.stored_size) for c in chunks]
    assert content["blob.digest"] == b"".join(chunk.digest.raw for chunk in chunks)
    header = CI_HEADER.unpack(content["blob.meta.header"])
    assert (header[0], header[-1]) == (CI_MAGIC, CI_MAGIC)
    assert header[3:7] == (len(chunks), tail.ci_offset, tail.ci_size, tail.ci_size)
    assert struct.unpack_from("<I", content["blob.meta.header"], 4092) == (CI_MAGIC,)
    assert tail.ci_offset == parts["blob.meta"].offset == data_size + 512
    assert hashlib.sha256(file[-tail.toc_size :]).digest() == tail.toc_digest


def test_each_part_stands_before_its_tar_header() -> None:
    out = bytearray()
    chunk = Chunk(0, Digest.of(b"x"), 0, 10, 0, 10, Codec.NONE)
    encode_blob_tail([chunk], 10, out.extend)
    stop, found = len(out), []
    while stop:
        header = toc.tar_header(bytes(out[stop - 512 : stop]))
        assert header is not None
        found.append(header)
        stop -= 512 + (header[1] if header[0] != "image.blob" else 0)
    assert found == [
        ("rafs.blob.toc", 4 * 128),
        ("blob.digest", 32),
        ("blob.meta", 16 + 4096),
        ("image.blob", 10),
    ]


def test_a_long_blob_lists_every_chunk() -> None:
    chunk = Chunk(0, Digest.of(b"x"), 0, 100, 0, 100, Codec.NONE)
    chunks = [replace(chunk, index=n, offset=n * 4096, stored_offset=n * 100) for n in range(9000)]
    tail = encode_blob_tail(chunks, 900_000, bytearray().extend)
    assert (tail.ci_size, tail.chunk_count, tail.size) == (9000 * 16, 9000, 9000 * 4096)


def test_the_entry_says_what_the_tail_holds() -> None:
    chunk = Chunk(0, Digest.of(b"x"), 0, 5000, 0, 100, Codec.LZ4)
    tail = encode_blob_tail([chunk], 100, bytearray().extend)
    entry = tail.entry("name", 1 << 20, Codec.LZ4, Algorithm.BLAKE3)
    assert (entry.blob.id, entry.blob.size, entry.blob.stored_size) == ("name", 8192, 100)
    assert (entry.ci_offset, entry.ci_stored_size, entry.ci_size) == (612, 16, 16)


@pytest.mark.parametrize(("size", "digits"), [(0, b"00000000000\0"), (8**11 - 1, b"77777777777\0")])
def test_sizes_in_tar_headers_are_octal(size: int, digits: bytes) -> None:
    block = tar_header("name", size)
    assert block[124:136] == digits
    assert int(block[148:154], 8) == sum(block) - sum(block[148:156]) + 8 * 32


def test_a_size_that_octal_digits_cannot_hold_is_binary() -> None:
    assert tar_header("name", 8**11)[124:136] == b"\x80" + (8**11).to_bytes(11, "big")


_GOOD = Chunk(0, Digest.of(b"x"), 0, 4096, 0, 100, Codec.LZ4)


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [replace(_GOOD, index=1)],
        [replace(_GOOD, offset=100)],
        [_GOOD, replace(_GOOD, index=1)],
        [replace(_GOOD, stored_offset=1 << 40)],
        [replace(_GOOD, offset=1 << 44)],
    ],
)
def test_chunks_that_are_no_blob_are_refused(chunks: list[Chunk]) -> None:
    with pytest.raises(BadSource):
        encode_blob_tail(chunks, 100, bytearray().extend)
