"""Codecs: round trips, and what damaged or hostile data comes to."""

from __future__ import annotations

import resource
import zlib

import lz4.block
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from chunkstore import Chunk, Codec, Corrupt, Digest
from chunkstore.codec import MAX_UNIT, decode, encode, slice_of

CODECS = [Codec.LZ4, Codec.GZIP, Codec.ZSTD]
ENCODERS = {
    Codec.LZ4: lambda data: lz4.block.compress(data, store_size=False),
    Codec.GZIP: lambda data: zlib.compress(data, wbits=31),
    Codec.ZSTD: zstandard.ZstdCompressor().compress,
}
TEXT = b"so it goes, " * 1000


@given(st.sampled_from(list(Codec)), st.binary(min_size=1, max_size=300), st.integers(1, 50))
def test_what_was_encoded_decodes_to_itself(codec: Codec, part: bytes, times: int) -> None:
    data = part * times
    stored = encode(codec, data)
    if stored is not None:
        assert len(stored) <= 0.97 * len(data)
        assert bytes(decode(codec, stored, len(data))) == data


def test_what_does_not_shrink_stays_plain() -> None:
    assert encode(Codec.NONE, TEXT) is None
    for codec in CODECS:
        assert encode(codec, b"abc") is None
        assert encode(codec, b"") is None


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [1, len(TEXT) - 1, len(TEXT) + 1, 2 * len(TEXT)])
def test_another_size_than_stated_is_corrupt(codec: Codec, size: int) -> None:
    with pytest.raises(Corrupt):
        decode(codec, ENCODERS[codec](TEXT), size)


def test_plain_data_of_another_size_is_corrupt() -> None:
    assert decode(Codec.NONE, TEXT, len(TEXT)) is TEXT
    with pytest.raises(Corrupt):
        decode(Codec.NONE, TEXT, len(TEXT) + 1)


@pytest.mark.parametrize("codec", CODECS)
def test_data_cut_anywhere_is_corrupt(codec: Codec) -> None:
    stored = ENCODERS[codec](TEXT)
    for stop in range(len(stored)):
        with pytest.raises(Corrupt):
            decode(codec, stored[:stop], len(TEXT))


@given(st.sampled_from(CODECS), st.data())
def test_damaged_data_is_corrupt_or_of_the_stated_size(codec: Codec, data: st.DataObject) -> None:
    stored = bytearray(ENCODERS[codec](TEXT[:600]))
    for at in data.draw(st.lists(st.integers(0, len(stored) - 1), min_size=1, max_size=4)):
        stored[at] ^= data.draw(st.integers(1, 255))
    try:
        plain = decode(codec, bytes(stored), 600)
    except Corrupt:
        return
    assert len(plain) == 600


def _bomb(codec: Codec) -> bytes:
    """Return a little data that decodes to 256 MiB of zeros."""
    if codec is Codec.LZ4:
        return bytes([0x1F, 0, 1, 0]) + b"\xff" * (1 << 20) + b"\x00" + b"\x50" + b"z" * 5
    if codec is Codec.GZIP:
        encoder = zlib.compressobj(wbits=31)
        return b"".join(encoder.compress(bytes(1 << 20)) for _ in range(256)) + encoder.flush()
    stream = zstandard.ZstdCompressor().compressobj()  # states no size
    return b"".join(stream.compress(bytes(1 << 20)) for _ in range(256)) + stream.flush()


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_is_corrupt_and_takes_no_memory(codec: Codec) -> None:
    bomb = _bomb(codec)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Corrupt):
        decode(codec, bomb, 65536)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 << 10  # KiB


def test_a_frame_that_states_a_huge_size_allocates_nothing() -> None:
    stored = bytearray(zstandard.ZstdCompressor().compress(bytes(1 << 20)))
    with pytest.raises(Corrupt, match="states"):
        decode(Codec.ZSTD, bytes(stored), 65536)


@pytest.mark.parametrize("size", [0, -1, MAX_UNIT + 1])
def test_sizes_that_no_unit_has_are_corrupt(size: int) -> None:
    with pytest.raises(Corrupt):
        decode(Codec.LZ4, b"x", size)


def test_a_chunk_of_a_unit_is_its_part() -> None:
    digest = Digest.of(b"x")
    inner = Chunk(3, digest, 8192, 4, 0, 100, Codec.ZSTD, unit_offset=6, unit_size=10)
    assert bytes(slice_of(inner, b"0123456789")) == b"6789"
    with pytest.raises(Corrupt):
        slice_of(inner, b"01234567")
    alone = Chunk(3, digest, 8192, 4, 0, 100, Codec.ZSTD)
    assert slice_of(alone, b"0123") == b"0123"
