"""ChunkTable and ChunkMap: an image's chunks by number and by decoded offset, without a scan.

A chunk table is an array of 80-byte records, in a mapped file or in memory. Where it is sorted by
(blob, index), as naiad writes it, a record is found by guessing its place or by bisection, and
nothing is kept. Other builders sort by digest; for these an index of 24 bytes per chunk is made
when the first answer is not where it should be, once. A record that is found is always checked, so
a table that is not what it seems costs time, never a wrong chunk.
"""

from __future__ import annotations

import functools
import itertools
import operator
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import overload

from chunkstore import CHUNKS_PER_BLOB, MAX_CHUNK, Blob, Buffer, Chunk, Codec, Digest

from . import v6_tables as tables
from .erofs import bad, round_block
from .errors import BadImage, Unsupported
from .v6_tables import BlobEntry

_RECORD = tables.CHUNK.size
_REMEMBERED = 256
"""Chunks kept ready-made: a reader asks for the same one several times in a row."""

_QUICK = 1 << 20
"""Rows up to which a sorted table's keys are kept, at 8 bytes each: to search them is quick."""

_OFFSET_BITS = 44
_INDEX_BITS = 32
"""Keys are exact whatever a record says: 32 bits each for blob and index."""
_MAX_OFFSET = 1 << _OFFSET_BITS
_MAX_BLOB = (1 << 64 - _OFFSET_BITS) - 1
_MAX_STORED = 1 << 40
"""Bytes of a blob, decoded and stored."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk is stored, told by its blob's own list instead of by the chunk table."""

    stored_offset: int
    stored_size: int
    codec: Codec
    unit_offset: int = 0
    unit_size: int = 0


Places = Callable[[int], Place]
"""Tells the place of a chunk by its index; raises BadImage."""


class ChunkTable:
    """All chunks that an image speaks of, of every blob: *count* records from *offset* on."""

    def __init__(
        self, buffer: Buffer, offset: int, count: int, entries: Sequence[BlobEntry]
    ) -> None:
        self._buffer = buffer
        self.start = offset
        """Byte of the first record."""
        self.entries = entries
        self._places: dict[int, Places] = {}
        self._by_index = _Order(count, self.key, self._index_keys)
        self._by_offset = _Order(count, self._offset_key, self._offset_keys)
        self.first = [0]
        """The row of each blob's first chunk, where the table is sorted."""
        for entry in entries:
            self.first.append(self.first[-1] + entry.blob.chunk_count)
        self.count = count
        self.chunk = functools.lru_cache(_REMEMBERED)(self._chunk)
        """Return the chunk in a row; raises BadImage."""

    def attach(self, blob_index: int, places: Places) -> None:
        """Take the stored places of a blob's chunks from *places* from now on."""
        self._places[blob_index] = places
        self.chunk.cache_clear()

    def find(self, blob_index: int, index: int) -> int | None:
        """Return the row of chunk *index* of a blob."""
        wanted = blob_index << _INDEX_BITS | index
        guess = self.first[blob_index] + index
        if guess < self.count and self.key(guess) == wanted:
            return guess
        row = self._by_index.exact(wanted)
        if row is None and self._by_index.settle():
            row = self._by_index.exact(wanted)
        return row

    def holds(self, blob_index: int, index: int, start: int, stop: int) -> bool:
        """Say whether chunk *index* is where it should be, and decoded ``[start, stop)`` in it.

        False where the table is in another order; then ``find`` knows.
        """
        row = self.first[blob_index] + index
        if row >= self.count:
            return False
        blob, size, offset, number = tables.CHUNK_SPOT.unpack_from(
            self._buffer, self.start + row * _RECORD + tables.KEY_OFFSET
        )
        in_order: bool = blob == blob_index and number == index
        return in_order and offset <= start and stop <= offset + size

    def covering(self, blob_index: int, offset: int) -> int | None:
        """Return the row of the chunk that holds a decoded offset of a blob."""
        wanted = blob_index << _OFFSET_BITS | offset
        row = self._by_offset.below(wanted)
        if (row is None or not self._holds(row, blob_index, offset)) and self._by_offset.settle():
            row = self._by_offset.below(wanted)
        return row if row is not None and self._holds(row, blob_index, offset) else None

    def rows(self, blob_index: int) -> Sequence[int]:
        """Return the rows of a blob's chunks in decoded order."""
        self._by_offset.settle()
        return self._by_offset.between(blob_index << _OFFSET_BITS, (blob_index + 1) << _OFFSET_BITS)

    def within(self, blob_index: int, start: int, stop: int) -> Iterator[Chunk]:
        """Yield a blob's chunks that have a part in ``[start, stop)``, in decoded order."""
        order = self._by_offset
        if not order.settled:
            order.settle()
        first, last = _offset_key(blob_index, 0), _offset_key(blob_index, stop)
        for key, row in order.from_below(_offset_key(blob_index, start)):
            if key >= last:
                return
            if key >= first:
                chunk = self.chunk(row)
                if chunk.stop > start:
                    yield chunk

    def attached(self, blob_index: int) -> bool:
        """Say whether a blob's places were told."""
        return blob_index in self._places

    def key(self, row: int) -> int:
        """Return blob and index of the record in a row, as one number, unchecked."""
        blob, index = tables.CHUNK_KEY.unpack_from(
            self._buffer, self.start + row * _RECORD + tables.KEY_OFFSET
        )
        return int(blob << _INDEX_BITS | index)

    def place(self, row: int) -> tuple[int, int, int]:
        """Return blob, decoded start and decoded stop of the record in a row, unchecked."""
        blob, size, start = tables.CHUNK_PLACE.unpack_from(
            self._buffer, self.start + row * _RECORD + tables.KEY_OFFSET
        )
        return blob, start, start + size

    def _offset_key(self, row: int) -> int:
        blob, start, _ = self.place(row)
        return _offset_key(blob, start)

    def _index_keys(self) -> Iterator[int]:
        for blob, index in tables.CHUNK_KEYS.iter_unpack(self._records()):
            yield blob << _INDEX_BITS | index

    def _offset_keys(self) -> Iterator[int]:
        for blob, offset in tables.CHUNK_OFFSETS.iter_unpack(self._records()):
            plain = blob <= _MAX_BLOB and offset < _MAX_OFFSET
            yield blob << _OFFSET_BITS | offset if plain else _offset_key(blob, offset)

    def _records(self) -> memoryview:
        return memoryview(self._buffer)[self.start : self.start + self.count * _RECORD]

    def _holds(self, row: int, blob_index: int, offset: int) -> bool:
        blob, start, stop = self.place(row)
        return blob == blob_index and start <= offset < stop

    def _chunk(self, row: int) -> Chunk:
        return unpack_chunk(self._buffer, self.start + row * _RECORD, self.entries, self._places)[1]


def _offset_key(blob: int, offset: int) -> int:
    """Return what sorts by blob and offset, in 64 bits whatever a record says."""
    return min(blob, _MAX_BLOB) << _OFFSET_BITS | min(offset, _MAX_OFFSET - 1)


def unpack_chunk(
    buffer: Buffer,
    place: int,
    entries: Sequence[BlobEntry],
    places: Mapping[int, Places] = MappingProxyType({}),
) -> tuple[Blob, Chunk]:
    """Read and check the record at byte *place*; a blob in *places* tells its own stored places."""
    digest, blob_index, flags, stored_size, size, stored_offset, offset, _, index, _ = (
        tables.CHUNK.unpack_from(buffer, place)
    )
    if blob_index >= len(entries):
        raise bad("chunk", place, f"of blob {blob_index}, there are {len(entries)}")
    entry = entries[blob_index]
    blob = entry.blob
    if not 0 < size <= MAX_CHUNK or offset + size > (round_block(blob.size) or _MAX_OFFSET):
        raise bad("chunk", place, f"{size} bytes at {offset} of blob {blob.id}")
    if index >= (blob.chunk_count or CHUNKS_PER_BLOB):
        raise bad("chunk", place, f"number {index} of blob {blob.id}")
    if flags & tables.CHUNK_ENCRYPTED:
        raise Unsupported(f"chunk at byte {place}: it is encrypted")
    if blob_index in places:
        told = places[blob_index](index)
    elif not stored_size:
        raise Unsupported(f"chunk at byte {place}: only blob {blob.id} itself can tell where it is")
    else:
        codec = entry.codec if flags & tables.COMPRESSED else Codec.NONE
        told = Place(stored_offset, stored_size, codec)
    if not _plausible(told, size):
        raise bad("chunk", place, f"{size} bytes stored as {told}")
    return blob, Chunk(
        index,
        Digest(entry.algorithm, digest),
        offset,
        size,
        told.stored_offset,
        told.stored_size,
        told.codec,
        told.unit_offset,
        told.unit_size,
    )


def _plausible(place: Place, size: int) -> bool:
    unit = place.unit_size or size
    return (
        0 < place.stored_size <= 2 * MAX_CHUNK
        and place.stored_offset + place.stored_size <= _MAX_STORED
        and place.unit_offset + size <= unit <= MAX_CHUNK
        and (place.codec is not Codec.NONE or place.stored_size == unit)
    )


class ChunkMap:
    """The chunks that an image knows of one blob."""

    def __init__(self, table: ChunkTable, blob_index: int) -> None:
        self.blob = table.entries[blob_index].blob
        self._table = table
        self._blob_index = blob_index

    def __len__(self) -> int:
        """Return how many there are; an image may know but part of a blob."""
        return len(self._table.rows(self._blob_index))

    def __iter__(self) -> Iterator[Chunk]:
        """Yield them in decoded order; raises BadImage."""
        return map(self._table.chunk, self._table.rows(self._blob_index))

    def get(self, index: int) -> Chunk | None:
        """Return the chunk that has *index* in its blob, None if it is unknown; raises BadImage."""
        row = self._table.find(self._blob_index, index)
        return None if row is None else self._table.chunk(row)

    def __getitem__(self, index: int) -> Chunk:
        """Return the chunk that has *index* in its blob; raises BadImage, also if it is unknown."""
        chunk = self.get(index)
        if chunk is None:
            raise BadImage(f"chunk table: no chunk {index} of blob {self.blob.id}")
        return chunk

    def within(self, start: int, stop: int) -> Iterator[Chunk]:
        """Yield the chunks that have a part in ``[start, stop)``, in order; raises BadImage."""
        return self._table.within(self._blob_index, start, stop)

    def at(self, offset: int) -> Chunk | None:
        """Return the chunk that holds decoded byte *offset*; raises BadImage."""
        row = self._table.covering(self._blob_index, offset)
        return None if row is None else self._table.chunk(row)


class _Order:
    """The rows of a table sorted by a key: believed to be as they stand until ``settle``."""

    def __init__(
        self, count: int, key: Callable[[int], int], keys: Callable[[], Iterator[int]]
    ) -> None:
        self._keys: Sequence[int] = _Keys(count, key)
        self._rows: Sequence[int] = range(count)
        self._read = keys
        self.settled = False

    def settle(self) -> bool:
        """Make sure that rows are sorted; say whether answers may be others now.

        Takes memory only where the table is not sorted itself, or is small.
        """
        if self.settled:
            return False
        self.settled = True
        if len(self._keys) > _QUICK and _ascending(self._read()):
            return False
        keys = array("Q", self._read())
        if _ascending(keys):
            self._keys = keys
            return False
        self._rows = array("I", sorted(range(len(keys)), key=keys.__getitem__))
        self._keys = array("Q", sorted(keys))
        return True

    def exact(self, key: int) -> int | None:
        """Return the row that has *key*."""
        place = bisect_left(self._keys, key)
        return self._rows[place] if place < len(self._keys) and self._keys[place] == key else None

    def below(self, key: int) -> int | None:
        """Return the row with the greatest key that is not above *key*."""
        place = bisect_right(self._keys, key)
        return self._rows[place - 1] if place else None

    def from_below(self, key: int) -> Iterator[tuple[int, int]]:
        """Yield keys and rows from the greatest key on that is not above *key*."""
        keys, rows = self._keys, self._rows
        first = max(0, bisect_right(keys, key) - 1)
        for place in range(first, len(keys)):
            yield keys[place], rows[place]

    def between(self, start: int, stop: int) -> Sequence[int]:
        """Return the rows whose keys are in ``[start, stop)``, in the keys' order."""
        return self._rows[bisect_left(self._keys, start) : bisect_left(self._keys, stop)]


def _ascending(keys: Iterable[int]) -> bool:
    return all(itertools.starmap(operator.lt, itertools.pairwise(keys)))


class _Keys(Sequence[int]):
    """The keys of the rows as they stand, each read when it is asked for."""

    def __init__(self, count: int, key: Callable[[int], int]) -> None:
        self._count = count
        self._key = key

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> int: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[int]: ...
    def __getitem__(self, row: int | slice) -> int | Sequence[int]:
        if isinstance(row, slice):
            return [self._key(one) for one in range(self._count)[row]]
        return self._key(row)
