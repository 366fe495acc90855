"""ChunkInfos: a blob's own list of its chunks (CI), which stands behind the data of the blob.

A bootstrap says itself where chunks are stored, except for those of batched blobs, in which many
small chunks are compressed as one unit: there only the blob's CI can tell. Who opens an image asks
``ranges_needed`` what to read of which blob, and attaches what ``decode`` makes of it::

    for need in ranges_needed(bootstrap):
        bootstrap.attach(need.blob_index, decode(need.entry, read(need.entry.blob.id, ...)))

Nothing here needs trust: a chunk found at a wrong place does not match its digest.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from chunkstore import Buffer, Codec, Corrupt, codec

from . import v6_tables as tables
from .blobtail import CI, CI_HEADER, CI_MAGIC
from .bootstrap import Bootstrap
from .chunkmap import Place
from .errors import BadImage, Unsupported
from .v6_tables import BlobEntry

CI_V2 = struct.Struct("<QQQ")
"""Decoded place and flags, stored place, and for a batched chunk its unit and place therein."""
CONTEXT = struct.Struct("<II32x")
"""A batch: stored bytes, decoded bytes."""

COMPRESSED, ZRAN, BATCHED, ENCRYPTED = 0x1, 0x2, 0x4, 0x8
"""Flags of a chunk in version 2."""

MAX_CI = codec.MAX_UNIT
"""Bytes of a decoded CI that naiad takes into memory: well over a million chunks."""


@dataclass(frozen=True, slots=True)
class RangeNeeded:
    """What must be read of a blob's file before its chunks can be found."""

    blob_index: int
    entry: BlobEntry
    start: int
    stop: int


class ChunkInfos:
    """A decoded CI. Calling it returns the place of the chunk with that index in the blob."""

    def __init__(self, entry: BlobEntry, table: bytes, batches: tuple[int, int]) -> None:
        """Read *table*; *batches* are offset and count of its batch contexts."""
        self._entry = entry
        self._table = table
        self._batches = batches
        self._record = CI_V2 if entry.features & tables.CI_V2 else CI

    def __len__(self) -> int:
        """Return how many chunks the blob has."""
        return self._entry.blob.chunk_count

    def __call__(self, index: int) -> Place:
        """Return where chunk *index* is stored; raises BadImage."""
        words = self._words(index)
        if self._record is CI:
            return self._place_v1(*words)
        flags = words[0] >> 56
        if flags & (ZRAN | ENCRYPTED):
            raise Unsupported(f"{self._name(index)}: flags {flags:#x}")
        offset, size = words[1] & (1 << 40) - 1, words[1] >> 40
        if flags & BATCHED:
            return self._batched(index, offset, words[2])
        return Place(offset, size, self._entry.codec if flags & COMPRESSED else Codec.NONE)

    def decoded(self, index: int) -> tuple[int, int]:
        """Return offset and size of chunk *index* in the decoded blob; raises BadImage."""
        word = self._words(index)[0]
        if self._record is CI:
            return word & 0xFFF_FFFF_F000, (word >> 44 | (word & 0xF00) << 12) + 1
        return (word & 0xFFFF_FFFF) << 12, (word >> 32 & 0xFF_FFFF) + 1

    def _words(self, index: int) -> tuple[int, ...]:
        if not 0 <= index < len(self):
            raise BadImage(f"{self._name(index)}: there are {len(self)}")
        return self._record.unpack_from(self._table, index * self._record.size)

    def _place_v1(self, decoded: int, stored: int) -> Place:
        size = (decoded >> 44 | (decoded & 0xF00) << 12) + 1
        stored_size = (stored >> 44 | (stored & 0xF00_0000_0000) >> 20) + 1
        return Place(stored & (1 << 40) - 1, stored_size, self._codec(stored_size, size))

    def _batched(self, index: int, offset: int, word: int) -> Place:
        start, count = self._batches
        number, inside = word >> 32, word & 0xFFFF_FFFF
        if number >= count:
            raise BadImage(f"{self._name(index)}: in batch {number}, there are {count}")
        stored_size, size = CONTEXT.unpack_from(self._table, start + number * CONTEXT.size)
        return Place(offset, stored_size, self._codec(stored_size, size), inside, size)

    def _codec(self, stored_size: int, size: int) -> Codec:
        """Return how a unit is stored where only its sizes tell."""
        return Codec.NONE if stored_size == size else self._entry.codec

    def _name(self, index: int) -> str:
        return f"chunk {index} in the list of blob {self._entry.blob.id}"


def ranges_needed(bootstrap: Bootstrap) -> list[RangeNeeded]:
    """Return what must be read of which blobs before *bootstrap* can tell where chunks are.

    Empty for nearly every image. Raises BadImage, Unsupported.
    """
    return [
        range_of(index, entry)
        for index, entry in enumerate(bootstrap.blob_entries)
        if entry.is_batched
    ]


def range_of(index: int, entry: BlobEntry) -> RangeNeeded:
    """Return where the CI of the image's blob number *index* stands, header and all."""
    what = f"chunk list of blob {entry.blob.id} at byte {entry.ci_offset}"
    if entry.features & tables.SEPARATE:
        raise Unsupported(f"{what}: it is in another file")
    if not 0 < entry.ci_stored_size <= entry.ci_size <= MAX_CI:
        raise BadImage(f"{what}: {entry.ci_stored_size} bytes of {entry.ci_size}")
    stop = entry.ci_offset + entry.ci_stored_size + CI_HEADER.size
    return RangeNeeded(index, entry, entry.ci_offset, stop)


def decode(entry: BlobEntry, data: Buffer) -> ChunkInfos:
    """Return the chunk list of a blob, of which *data* are the bytes that ``range_of`` named."""
    what = f"chunk list of blob {entry.blob.id} at byte {entry.ci_offset}"
    if len(data) != entry.ci_stored_size + CI_HEADER.size:
        raise BadImage(f"{what}: cut off after {len(data)} bytes")
    fields = CI_HEADER.unpack_from(data, entry.ci_stored_size)
    expected = (
        *(entry.ci_codec.value, entry.blob.chunk_count, entry.ci_offset),
        *(entry.ci_stored_size, entry.ci_size),
    )
    if fields[0] != CI_MAGIC or fields[10] != CI_MAGIC or fields[2:7] != expected:
        raise BadImage(f"{what}: its header does not fit the image")
    version_2 = entry.features & tables.CI_V2
    chunks = entry.blob.chunk_count * (CI_V2 if version_2 else CI).size
    contexts = (fields[7], fields[9]) if entry.is_batched else (chunks, 0)
    if contexts[0] < chunks or contexts[0] + contexts[1] * CONTEXT.size > entry.ci_size:
        raise BadImage(f"{what}: {entry.ci_size} bytes do not hold its chunks and batches")
    try:
        table = bytes(codec.decode(entry.ci_codec, data[: entry.ci_stored_size], entry.ci_size))
    except Corrupt as exc:
        raise BadImage(f"{what}: {exc}") from exc
    return ChunkInfos(entry, table, contexts)
