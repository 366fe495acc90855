"""The list of chunks that a blob carries, in both versions, compressed, batched and broken."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkstore import Algorithm, Blob, Chunk, Codec, Digest, codec
from fixtures.foreign import Batched, batched_blob, batched_chunks, listed_blob
from fixtures.sketch import Sketch
from rafs import BadImage, Bootstrap, Unsupported
from rafs import v6_tables as tables
from rafs.ci import ChunkInfos, decode, range_of, ranges_needed
from rafs.v6 import BlobEntry

_SMALL = [b"%d" % number * (100 + 37 * number % 4000) for number in range(1, 40)]


def _entry(made: Batched, count: int, features: int, ci: Codec, stored: Codec) -> BlobEntry:
    return BlobEntry(
        Blob("b" * 64, 1 << 40, made.ci_offset, count),
        *(1 << 20, stored, Algorithm.SHA256, features),
        *(ci, made.ci_offset, made.ci_stored_size, made.ci_size),
    )


def _infos(entry: BlobEntry, file: bytes) -> ChunkInfos:
    need = range_of(0, entry)
    return decode(entry, file[need.start : need.stop])


@pytest.mark.parametrize("ci", [Codec.NONE, Codec.LZ4, Codec.ZSTD])
@pytest.mark.parametrize("stored", [Codec.NONE, Codec.LZ4, Codec.ZSTD])
@pytest.mark.parametrize("per_batch", [1, 7, 100])
def test_batched_chunks_are_found_in_their_units(ci: Codec, stored: Codec, per_batch: int) -> None:
    made = batched_blob(_SMALL, per_batch, stored, ci)
    entry = _entry(made, len(_SMALL), tables.BATCH | tables.CI_V2, ci, stored)
    infos = _infos(entry, made.file)
    for chunk, data in zip(batched_chunks(_SMALL, Algorithm.SHA256), _SMALL, strict=True):
        place = infos(chunk.index)
        unit = codec.decode(
            place.codec,
            made.file[place.stored_offset : place.stored_offset + place.stored_size],
            place.unit_size,
        )
        assert bytes(unit[place.unit_offset :][: len(data)]) == data
        assert infos.decoded(chunk.index) == (chunk.offset, chunk.size)


_CHUNKS = st.lists(
    st.tuples(st.integers(1, 1 << 24), st.integers(1, (1 << 24) - 1), st.integers(0, 1 << 30)),
    min_size=1,
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(_CHUNKS, st.sampled_from([1, 2]), st.sampled_from([Codec.NONE, Codec.LZ4, Codec.ZSTD]))
def test_both_versions_say_where_each_chunk_is(
    sizes: list[tuple[int, int, int]], version: int, ci: Codec
) -> None:
    chunks, offset = [], 0
    for index, (size, stored_size, stored_offset) in enumerate(sizes):
        chunk_codec = Codec.NONE if stored_size == size else Codec.LZ4
        digest = Digest.of(b"")
        chunks.append(Chunk(index, digest, offset, size, stored_offset, stored_size, chunk_codec))
        offset += size + -size % 4096
    made = listed_blob(b"data", chunks, ci, version=version)
    features = tables.CI_V2 if version == 2 else 0
    if made.ci_stored_size > made.ci_size:  # what does not shrink is stored plain
        made, ci = listed_blob(b"data", chunks, Codec.NONE, version=version), Codec.NONE
    infos = _infos(_entry(made, len(chunks), features, ci, Codec.LZ4), made.file)
    for chunk in chunks:
        place = infos(chunk.index)
        assert infos.decoded(chunk.index) == (chunk.offset, chunk.size)
        assert (place.stored_offset, place.stored_size) == (chunk.stored_offset, chunk.stored_size)
        assert (place.codec, place.unit_offset, place.unit_size) == (chunk.codec, 0, 0)


def _batched_image() -> tuple[bytes, Batched]:
    """Return a bootstrap that says nothing of where its chunks are, and the blob that does."""
    made = batched_blob(_SMALL, 8, Codec.ZSTD, Codec.LZ4)
    sketch = Sketch(4096)
    for number, content in enumerate(_SMALL):
        sketch.root.children[b"%03d" % number] = sketch.file(content)
    data = bytearray(sketch.bootstrap())
    (place,) = struct.unpack_from("<Q", data, tables.EXT_OFFSET + 8)
    features = tables.BATCH | tables.CI_V2 | tables.ALIGNED
    struct.pack_into("<III", data, place + 76, Codec.ZSTD.value, 0, features)
    struct.pack_into(
        "<IQQQ",
        *(data, place + 108, Codec.LZ4.value),
        *(made.ci_offset, made.ci_stored_size, made.ci_size),
    )
    offset, size = struct.unpack_from("<QQ", data, tables.EXT_OFFSET + 24)
    for record in range(offset, offset + size, 80):
        struct.pack_into("<II", data, record + 36, 0, 0)
        struct.pack_into("<Q", data, record + 48, 0)
    return bytes(data), made


def test_an_image_of_batched_chunks_is_read_once_their_list_is_attached() -> None:
    bootstrap, made = _batched_image()
    image = Bootstrap.decode(bootstrap)
    nid = image.lookup(image.root, b"000")
    assert nid is not None
    with pytest.raises(Unsupported, match="only blob"):
        image.extents(nid, 0, 10)
    (need,) = ranges_needed(image)
    image.attach(need.blob_index, decode(need.entry, made.file[need.start : need.stop]))
    for number, data in enumerate(_SMALL):
        nid = image.lookup(image.root, b"%03d" % number)
        assert nid is not None
        (extent,) = image.extents(nid, 0, len(data))
        assert extent.chunk
        stored = made.file[extent.chunk.stored_offset : extent.chunk.stored_stop]
        unit = codec.decode(extent.chunk.codec, stored, extent.chunk.unit_size)
        assert extent.chunk.digest.matches(codec.slice_of(extent.chunk, unit))
        assert bytes(codec.slice_of(extent.chunk, unit)) == data


def test_nearly_all_images_need_nothing_of_their_blobs() -> None:
    sketch = Sketch()
    sketch.root.children[b"f"] = sketch.file(b"data")
    assert ranges_needed(Bootstrap.decode(sketch.bootstrap())) == []


_FIELDS = [
    (0, "<I", 0, "header does not fit"),
    (4092, "<I", 0, "header does not fit"),
    (8, "<I", 3, "header does not fit"),
    (12, "<I", 7, "header does not fit"),
    (16, "<Q", 7, "header does not fit"),
    (24, "<Q", 7, "header does not fit"),
    (32, "<Q", 7, "header does not fit"),
    (40, "<Q", 0, "do not hold its chunks and batches"),
    (40, "<Q", 1 << 63, "do not hold"),
    (56, "<I", 1 << 31, "do not hold"),
]


@pytest.mark.parametrize(("place", "layout", "value", "message"), _FIELDS)
def test_a_list_whose_header_lies_is_refused(
    place: int, layout: str, value: int, message: str
) -> None:
    made = batched_blob(_SMALL, 8, Codec.ZSTD, Codec.NONE)
    entry = _entry(made, len(_SMALL), tables.BATCH | tables.CI_V2, Codec.NONE, Codec.ZSTD)
    file = bytearray(made.file)
    struct.pack_into(layout, file, len(file) - 4096 + place, value)
    with pytest.raises(BadImage, match=message) as caught:
        _infos(entry, bytes(file))
    assert f"at byte {made.ci_offset}" in str(caught.value)


@pytest.mark.parametrize(("stored", "size"), [(0, 0), (10, 5), (10, 1 << 40), (1 << 40, 1 << 41)])
def test_a_list_of_no_plausible_size_is_refused_before_it_is_read(stored: int, size: int) -> None:
    made = Batched(b"", 0, stored, size)
    entry = _entry(made, 1, tables.BATCH | tables.CI_V2, Codec.ZSTD, Codec.ZSTD)
    with pytest.raises(BadImage, match="chunk list"):
        range_of(0, entry)


def test_a_list_in_another_file_is_unsupported() -> None:
    made = Batched(b"", 0, 5, 10)
    features = tables.BATCH | tables.CI_V2 | tables.SEPARATE
    with pytest.raises(Unsupported, match="another file"):
        range_of(0, _entry(made, 1, features, Codec.ZSTD, Codec.ZSTD))


def test_a_list_that_is_cut_or_blows_up_is_refused() -> None:
    made = batched_blob(_SMALL, 8, Codec.ZSTD, Codec.ZSTD)
    entry = _entry(made, len(_SMALL), tables.BATCH | tables.CI_V2, Codec.ZSTD, Codec.ZSTD)
    need = range_of(0, entry)
    with pytest.raises(BadImage, match="cut off"):
        decode(entry, made.file[need.start : need.stop - 1])
    file = bytearray(made.file)
    file[need.start : need.start + 8] = bytes(8)
    with pytest.raises(BadImage, match="ZSTD"):
        decode(entry, file[need.start : need.stop])


def test_chunks_and_batches_that_are_not_there_are_refused() -> None:
    made = batched_blob(_SMALL, 8, Codec.ZSTD, Codec.NONE)
    file = bytearray(made.file)
    struct.pack_into("<I", file, made.ci_offset + 20, 99)
    struct.pack_into("<B", file, made.ci_offset + 24 + 7, 0x2)
    entry = _entry(made, len(_SMALL), tables.BATCH | tables.CI_V2, Codec.NONE, Codec.ZSTD)
    infos = _infos(entry, bytes(file))
    with pytest.raises(BadImage, match="in batch 99"):
        infos(0)
    with pytest.raises(Unsupported, match="flags 0x2"):
        infos(1)
    for index in (-1, len(_SMALL)):
        with pytest.raises(BadImage, match="there are 39"):
            infos(index)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 255)), min_size=1, max_size=3), st.data()
)
def test_any_change_in_a_list_gives_places_or_one_error(
    changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    bootstrap, made = _batched_image()
    image = Bootstrap.decode(bootstrap)
    (need,) = ranges_needed(image)
    file = bytearray(made.file[need.start : need.stop])
    for _, value in changes:
        file[data.draw(st.integers(0, len(file) - 1))] = value
    try:
        image.attach(need.blob_index, decode(need.entry, file))
        list(itertools.islice(image.chunks(0), 100))
    except BadImage:
        pass
