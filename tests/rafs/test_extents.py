"""Extents against flat bytes."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkstore import Blob, Chunk, Codec, Digest
from fixtures.reading import cut, read
from fixtures.sketch import Sketch
from rafs import Bootstrap
from rafs.extents import extents, file_chunks
from rafs.metadata import Piece

_BLOB = Blob("b", 1 << 30, 0, 0)
_DIGEST = Digest.of(b"")


@dataclass
class _Cuts:
    """A file cut anywhere; None where a piece is a hole."""

    pieces: list[tuple[int, Chunk | None, int]] = field(default_factory=list)
    """Where each starts in the file, its chunk, and where in the chunk."""
    size: int = 0
    flat: bytearray = field(default_factory=bytearray)
    decoded: bytearray = field(default_factory=bytearray)

    def at(self, position: int) -> Piece:
        assert 0 <= position < self.size
        index = bisect_right(self.pieces, position, key=lambda piece: piece[0]) - 1
        start, chunk, offset = self.pieces[index]
        stop = self.pieces[index + 1][0] if index + 1 < len(self.pieces) else self.size
        return Piece(start, stop, None if chunk is None else _BLOB, chunk, offset)


@st.composite
def _files(draw: st.DrawFn) -> _Cuts:
    """Files whose pieces are parts of chunks of any size, in any order, and holes."""
    cuts = _Cuts()
    chunks = []
    for number, size in enumerate(draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))):
        offset = len(cuts.decoded)
        chunks.append(Chunk(number, _DIGEST, offset, size, 0, size, Codec.NONE))
        cuts.decoded += bytes([65 + number]) + bytes(range(size - 1))
    for _ in range(draw(st.integers(0, 8))):
        chunk = draw(st.sampled_from([*chunks, None]))
        if chunk is None:
            first, data = 0, bytes(draw(st.integers(1, 9)))
        else:
            first = draw(st.integers(0, chunk.size - 1))
            stop = draw(st.integers(first + 1, chunk.size))
            data = bytes(cuts.decoded[chunk.offset + first : chunk.offset + stop])
        cuts.pieces.append((cuts.size, chunk, first))
        cuts.flat += data
        cuts.size += len(data)
    return cuts


@given(_files(), st.integers(-3, 60), st.integers(-3, 60))
def test_extents_are_what_a_flat_file_would_give(cuts: _Cuts, start: int, stop: int) -> None:
    found = extents(cuts, start, stop)
    assert b"".join(cut(one, {"b": cuts.decoded}) for one in found) == bytes(
        cuts.flat[max(start, 0) : max(stop, 0)]
    )
    for one in found:
        assert one.size > 0
        assert one.chunk is None or 0 <= one.start < one.stop <= one.chunk.size
    for one, two in pairwise(found):
        assert (one.chunk, one.stop) != (two.chunk, two.start) or one.chunk is None
        assert not (one.chunk is None and two.chunk is None)


@given(_files())
def test_a_files_chunks_come_in_order(cuts: _Cuts) -> None:
    found = [None if one is None else one[1] for one in file_chunks(cuts)]
    expected: list[Chunk | None] = []
    for _, chunk, _ in cuts.pieces:
        if chunk is None or not expected or expected[-1] is not chunk:
            expected.append(chunk)
    assert found == expected


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 12_288, 30_000])
def test_every_read_of_an_image_is_right(size: int) -> None:
    sketch = Sketch(4096)
    data = bytes(number * 7 % 251 for number in range(size))
    sketch.root.children = {b"f": sketch.file(data), b"g": sketch.file(data[:5000], blob=1)}
    image = Bootstrap.decode(sketch.bootstrap())
    decoded = dict(
        zip([blob.id for blob in image.blobs], [one.decoded for one in sketch.blobs], strict=True)
    )
    nid = image.lookup(image.root, b"f")
    assert nid is not None
    for start in (0, 1, 4095, 4096, 4097, size - 1, size, size + 1):
        for stop in (0, start, start + 1, start + 4096, start + 4097, size, size + 100):
            assert read(image, nid, start, stop, decoded) == data[start : max(stop, 0)]
