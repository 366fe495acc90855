"""How chunks are stored: encode and decode one, within the memory its size allows.

LZ4 is the raw block format without a frame or a size in front: the decoded size is known from the
chunk map, as Nydus stores it. Both directions release the GIL and may run in any thread; the zstd
contexts are kept per thread, because making one costs more than using it on a small chunk.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable

import lz4.block
import zstandard

from .chunk import MAX_CHUNK, Chunk, Codec
from .digest import Buffer
from .errors import Corrupt

WORTH = 0.97
"""A codec is dropped for a chunk where it leaves more than this share of the bytes."""

MAX_UNIT = 2 * MAX_CHUNK
"""Bytes of a stored unit, encoded or decoded, past which a chunk map is not believed."""

_ZSTD_LEVEL = 3
"""The level that other builders of the format use."""

_ZSTD_WINDOW = MAX_UNIT
"""Bytes a frame may ask to be kept while decoding; no unit needs more than itself."""

_GZIP_OR_ZLIB = 47
"""zlib's wbits: the largest window, header told apart by its first bytes."""


def decode(codec: Codec, data: Buffer, size: int) -> Buffer:
    """Return the *size* bytes that *data* stands for; *data* itself where the codec is NONE.

    Raises Corrupt when it stands for fewer or more; more than *size* bytes are never held.
    """
    if not 0 < size <= MAX_UNIT:
        raise Corrupt(f"a stored unit of {size} decoded bytes")
    plain = _DECODE[codec](data, size)
    if len(plain) != size:
        raise Corrupt(f"{codec.name} data of {len(plain)} decoded bytes, not {size}")
    return plain


def encode(codec: Codec, data: Buffer) -> bytes | None:
    """Return *data* encoded, or None where that saves less than 3 % of it."""
    if codec is Codec.NONE or not data:
        return None
    stored = _ENCODE[codec](data)
    return stored if len(stored) <= WORTH * len(data) else None


def slice_of(chunk: Chunk, unit: Buffer) -> Buffer:
    """Return *chunk*'s part of its decoded *unit*; raises Corrupt when the unit is too short."""
    if not chunk.unit_size:
        return unit
    part = memoryview(unit)[chunk.unit_offset : chunk.unit_offset + chunk.size]
    if len(part) != chunk.size:
        raise Corrupt(f"chunk {chunk.index} reaches beyond its unit of {len(unit)} bytes")
    return part


def _plain(data: Buffer, size: int) -> Buffer:
    return data


def _unlz4(data: Buffer, size: int) -> Buffer:
    try:
        plain: bytes = lz4.block.decompress(data, uncompressed_size=size)
    except (lz4.block.LZ4BlockError, ValueError, OverflowError) as exc:
        raise Corrupt(f"LZ4 data that does not decode to {size} bytes") from exc
    return plain


def _ungzip(data: Buffer, size: int) -> Buffer:
    decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        plain = decoder.decompress(data, size + 1)
        if not decoder.eof and len(plain) == size:
            # The output can be whole before the trailer with the checksum was looked at.
            plain += decoder.decompress(decoder.unconsumed_tail, 1)
    except zlib.error as exc:
        raise Corrupt(f"GZIP data that does not decode: {exc}") from exc
    if not decoder.eof and len(plain) <= size:
        raise Corrupt("GZIP data that is cut")
    return plain


def _unzstd(data: Buffer, size: int) -> Buffer:
    try:
        stated = zstandard.frame_content_size(data)
        if stated not in (-1, size):  # a stated size is what the decoder would allocate
            raise Corrupt(f"ZSTD data that states {stated} decoded bytes, not {size}")
        return _contexts.decoder.decompress(data, max_output_size=size)
    except zstandard.ZstdError as exc:
        raise Corrupt(f"ZSTD data that does not decode to {size} bytes: {exc}") from exc


def _lz4(data: Buffer) -> bytes:
    stored: bytes = lz4.block.compress(data, store_size=False)
    return stored


def _gzip(data: Buffer) -> bytes:
    encoder = zlib.compressobj(wbits=31)
    return encoder.compress(data) + encoder.flush()


def _zstd(data: Buffer) -> bytes:
    return _contexts.encoder.compress(data)


class _Contexts(threading.local):
    """The zstd contexts of one thread; they are not safe to share."""

    def __init__(self) -> None:
        self.encoder = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        self.decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)


_contexts = _Contexts()

_DECODE: dict[Codec, Callable[[Buffer, int], Buffer]] = {
    Codec.NONE: _plain,
    Codec.LZ4: _unlz4,
    Codec.GZIP: _ungzip,
    Codec.ZSTD: _unzstd,
}
_ENCODE: dict[Codec, Callable[[Buffer], bytes]] = {
    Codec.LZ4: _lz4,
    Codec.GZIP: _gzip,
    Codec.ZSTD: _zstd,
}
