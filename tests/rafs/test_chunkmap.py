"""Chunk tables in every order, whole and in part."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkstore import Blob, Chunk, Codec, Digest
from rafs import BadImage, ChunkMap, Unsupported
from rafs import v6_tables as tables
from rafs.chunkmap import ChunkTable, Place
from rafs.v6_chunklist import ChunkList
from rafs.v6_tables import BlobEntry

_Listed = list[tuple[int, Chunk]]


def _entry(name: str, count: int, codec: Codec = Codec.LZ4) -> BlobEntry:
    return BlobEntry(Blob(name, count << 16, 0, count), 1 << 16, codec)


def _chunk(index: int, size: int = 5000) -> Chunk:
    digest = Digest.of(index.to_bytes(4, "little"))
    return Chunk(index, digest, index << 16, size, index * 5000, 4000, Codec.LZ4)


def _table(listed: Sequence[tuple[int, Chunk]], entries: Sequence[BlobEntry]) -> ChunkTable:
    """Pack *listed* in this very order, as other builders would."""
    data = bytearray(b"before")
    for blob, chunk in listed:
        one = ChunkList()
        one.append(blob, chunk)
        data += b"".join(one.records())
    return ChunkTable(data, 6, len(listed), entries)


@st.composite
def _partial(draw: st.DrawFn) -> tuple[_Listed, list[BlobEntry]]:
    """Return part of the chunks of some blobs."""
    counts = draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    entries = [_entry(f"b{number}", count) for number, count in enumerate(counts)]
    listed = [
        (blob, _chunk(index))
        for blob, count in enumerate(counts)
        for index in sorted(draw(st.sets(st.integers(0, count - 1))))
    ]
    return listed, entries


@given(_partial(), st.randoms(use_true_random=False), st.booleans())
def test_chunks_are_found_in_any_order(
    drawn: tuple[_Listed, list[BlobEntry]], shuffle: random.Random, mixed: bool
) -> None:
    listed, entries = drawn
    stored = list(listed)
    if mixed:
        shuffle.shuffle(stored)
    table = _table(stored, entries)
    for blob, entry in enumerate(entries):
        chunks = ChunkMap(table, blob)
        known = {chunk.index: chunk for number, chunk in listed if number == blob}
        for index in range(entry.blob.chunk_count + 1):
            assert chunks.get(index) == known.get(index)
            assert chunks.at(index << 16) == known.get(index)
            assert chunks.at((index << 16) + 4999) == known.get(index)
            assert chunks.at((index << 16) + 5000) is None
        assert list(chunks) == sorted(known.values(), key=lambda chunk: chunk.offset)
        assert len(chunks) == len(known)


def test_a_sorted_table_needs_no_index() -> None:
    entries = [_entry("a", 100), _entry("b", 1000)]
    table = _table([(1, _chunk(index)) for index in range(0, 1000, 3)], entries)
    chunks = ChunkMap(table, 1)
    assert chunks[999].index == 999
    assert chunks.at(300 << 16) == chunks[300]
    assert not table._by_index.settled
    assert not table._by_offset.settled


def test_an_unknown_chunk_is_a_bad_image() -> None:
    table = _table([(0, _chunk(1))], [_entry("a", 3)])
    with pytest.raises(BadImage, match="no chunk 2 of blob a"):
        ChunkMap(table, 0)[2]


@pytest.mark.parametrize(
    ("chunk", "entries", "message"),
    [
        (_chunk(0), [], "of blob 0, there are 0"),
        (_chunk(3), [_entry("a", 3)], "of blob a"),
        (replace(_chunk(0), size=0), [_entry("a", 3)], "0 bytes"),
        (replace(_chunk(0), size=(16 << 20) + 1), [_entry("a", 1 << 10)], "16777217 bytes"),
        (replace(_chunk(0), offset=1 << 43), [_entry("a", 3)], "at 8796093022208"),
        (replace(_chunk(0), stored_size=(32 << 20) + 1), [_entry("a", 3)], "stored as"),
        (replace(_chunk(0), stored_offset=1 << 40), [_entry("a", 3)], "stored as"),
        (replace(_chunk(0), codec=Codec.NONE), [_entry("a", 3)], "stored as"),
    ],
)
def test_a_record_that_cannot_be_is_a_bad_image(
    chunk: Chunk, entries: list[BlobEntry], message: str
) -> None:
    with pytest.raises(BadImage, match=message) as caught:
        _table([(0, chunk)], entries).chunk(0)
    assert "at byte 6" in str(caught.value)


def test_a_batched_chunk_is_found_by_the_blobs_own_list() -> None:
    entry = replace(_entry("a", 3), features=tables.ALIGNED | tables.BATCH | tables.CI_V2)
    table = _table([(0, replace(_chunk(2), stored_size=0, codec=Codec.NONE))], [entry])
    with pytest.raises(Unsupported, match="only blob a itself"):
        ChunkMap(table, 0)[2]
    table.attach(0, lambda index: Place(700, 90, Codec.ZSTD, index * 5000, 20_000))
    chunk = ChunkMap(table, 0)[2]
    assert (chunk.stored_offset, chunk.stored_size, chunk.codec) == (700, 90, Codec.ZSTD)
    assert (chunk.unit_offset, chunk.unit_size) == (10_000, 20_000)


def test_a_place_outside_its_unit_is_a_bad_image() -> None:
    table = _table([(0, _chunk(2))], [_entry("a", 3)])
    table.attach(0, lambda index: Place(700, 90, Codec.ZSTD, 16_000, 20_000))
    with pytest.raises(BadImage, match="stored as"):
        ChunkMap(table, 0)[2]


def test_a_hundred_thousand_shuffled_chunks_cost_arrays_only() -> None:
    count = 100_000
    order = list(range(count))
    random.Random(1).shuffle(order)
    made = ChunkList()
    for index in order:
        made.append(0, _chunk(index))
    table = ChunkTable(made._records, 0, count, [_entry("a", count)])
    chunks = ChunkMap(table, 0)
    assert [chunks[index].index for index in range(0, count, 997)] == list(range(0, count, 997))
    assert sum(1 for _ in zip(chunks, range(5), strict=False)) == 5
