"""The ready map: what is known of each chunk slot of a cache file.

A map file belongs to one data file and is shared by processes::

    0                 header: format, the data file it belongs to, and the boot it was used in
    4096              a state byte per chunk slot, mapped; allocated when made, because storing into
                      a hole of a mapped file on a full disk is SIGBUS
    4096 + 16 MiB     a use byte per slot, mapped: 255 at each use, halved by each eviction
    4096 + 32 MiB     a record of 48 bytes per slot, by pread and pwrite

Slots are numbered by the chunk's index in the blob's own list. A record says which digest, place
and size the slot is for. It is claimed once, under the folder's lock, only where it does not
overlap the claimed slots on either side, and then never changes while the file lives; so a process
that has found its own image's chunk equal to the record needs to look at the state byte only. The
record also carries a mark, written after the data and wiped before a hole is punched, and a
checksum: a state byte that was damaged into READY is found out when a process first trusts the
slot.

States are five bits apart from each other, so that no four flipped bits make one of another. Any
other value is damage and counts as not ready. One byte each, not one bit: two processes setting
bits in a shared byte lose updates [measured].
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress

from .chunk import CHUNKS_PER_BLOB, MAX_CHUNK, Chunk
from .digest import Algorithm, Digest

EMPTY, CLAIMED, READY, UNVERIFIED = 0x00, 0x1F, 0xE3, 0xFC
"""Never claimed; claimed without bytes; bytes in place; bytes that may predate a crash."""

IN_USE = 255
"""What a use byte is set to."""

_HEADER = struct.Struct("<8sIIQQ16s32s")
_MAGIC, _VERSION = b"naiadmap", 1
_CHECKSUM = struct.Struct("<I")
_RECORD = struct.Struct("<32sQIB")
_RECORD_SIZE = 48
_SIZE_OF = struct.Struct("<40xI4x")
_MARK_AT, _CHECK_AT = 45, 46
_MARKED, _UNMARKED = b"\xa5", b"\x00"
_NO_RECORD = bytes(_RECORD_SIZE)

_STATES_AT = 4096
_USES_AT = _STATES_AT + CHUNKS_PER_BLOB
_RECORDS_AT = _USES_AT + CHUNKS_PER_BLOB

_AROUND = 256 << 10
"""Bytes of records that are read from the disk at once."""

_ALGORITHMS = {Algorithm.BLAKE3: 1, Algorithm.SHA256: 2}
_BY_NUMBER = {number: algorithm for algorithm, number in _ALGORITHMS.items()}

_AFTER_CRASH = bytes(UNVERIFIED if value == READY else value for value in range(256))
_COUNTED = bytes(value in (READY, UNVERIFIED) for value in range(256))
_AGED = bytes(value >> 1 for value in range(256))

CLEAN = bytes(16)
"""In place of a boot id: everything was synced when the last user closed the file."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a map file says of itself."""

    chunk_count: int
    """Slots that are allocated."""
    size: int
    """Bytes of the data file."""
    inode: int
    """Of the data file; another file under its name is not what the states speak of."""
    boot: bytes
    """16 bytes: the boot in which states may have been ahead of the disk, or CLEAN."""
    name: bytes
    """SHA-256 of the blob id."""

    def encode(self) -> bytes:
        """Return the header's bytes with their checksum."""
        data = _HEADER.pack(
            _MAGIC,
            _VERSION,
            self.chunk_count,
            self.size,
            self.inode,
            self.boot,
            self.name,
        )
        return data + _CHECKSUM.pack(zlib.crc32(data))

    @classmethod
    def decode(cls, data: bytes) -> Header | None:
        """Return what *data* says, or None where it is damaged or another format's."""
        body = data[: _HEADER.size]
        if len(data) < _HEADER.size + _CHECKSUM.size:
            return None
        magic, version, *fields = _HEADER.unpack(body)
        (checksum,) = _CHECKSUM.unpack_from(data, _HEADER.size)
        if (magic, version, checksum) != (_MAGIC, _VERSION, zlib.crc32(body)):
            return None
        header = cls(*fields)
        return header if header.chunk_count <= CHUNKS_PER_BLOB else None


@dataclass(frozen=True, slots=True)
class Record:
    """What a claimed slot is for."""

    digest: Digest
    offset: int
    """Where its bytes are in the data file."""
    size: int
    marked: bool
    """Its bytes were in place once, and no hole was punched since."""


class ReadyMap:
    """An open map file; what it does not lock itself, its caller does.

    ``claim`` needs the folder's lock; ``mark``, ``unmark`` and state changes need the data file's
    lease, shared to make a chunk ready and exclusive to take it away.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.chunk_count = 0
        self.states = self.uses = memoryview(b"")

    def load(self) -> Header | None:
        """Read the header; None where it is no use."""
        header = Header.decode(os.pread(self._fd, _HEADER.size + _CHECKSUM.size, 0))
        if header is None or os.fstat(self._fd).st_size < _file_size(header.chunk_count):
            return None
        return header

    def store(self, header: Header) -> None:
        """Write the header, allocating the slots it speaks of; raises OSError (ENOSPC)."""
        if os.fstat(self._fd).st_size < _file_size(header.chunk_count):
            os.posix_fallocate(self._fd, 0, _STATES_AT + header.chunk_count)
            os.posix_fallocate(self._fd, _USES_AT, header.chunk_count)
            os.ftruncate(self._fd, _file_size(header.chunk_count))
        os.pwrite(self._fd, header.encode(), 0)

    def map(self, chunk_count: int) -> None:
        """Map the first *chunk_count* slots, which are allocated."""
        mapped = memoryview(mmap.mmap(self._fd, _USES_AT + max(chunk_count, 1)))
        self.states = mapped[_STATES_AT : _STATES_AT + chunk_count]
        self.uses = mapped[_USES_AT : _USES_AT + chunk_count]
        self.chunk_count = chunk_count

    def distrust(self, chunk_count: int) -> None:
        """After a crash: nothing is ready until verified again, lost records free their slots."""
        self.map(chunk_count)
        self.states[:] = self.states.tobytes().translate(_AFTER_CRASH)
        for index, raw in self._raw_records():
            if self.states[index] != EMPTY and _decode(raw) is None:
                self.states[index] = EMPTY

    def matches(self, chunk: Chunk) -> bool:
        """Say whether *chunk*'s slot is claimed for exactly *chunk*."""
        return self._raw(chunk.index)[:_MARK_AT] == _encode(chunk)[:_MARK_AT]

    def trusted(self, chunk: Chunk) -> bool:
        """Say whether *chunk*'s slot is for *chunk* and its record agrees that bytes are there."""
        raw = self._raw(chunk.index)
        return raw[_MARK_AT:_CHECK_AT] == _MARKED and raw[:_MARK_AT] == _encode(chunk)[:_MARK_AT]

    def record(self, index: int) -> Record | None:
        """Return what slot *index* is for; None where it is unclaimed or its record damaged."""
        return _decode(self._raw(index))

    def claim(self, chunk: Chunk) -> bool:
        """Claim *chunk*'s slot for it; say whether the slot is *chunk*'s now."""
        self._follow_growth()
        state = self.states[chunk.index]
        if state in (CLAIMED, READY, UNVERIFIED):
            return self.matches(chunk)
        raw = self._raw(chunk.index)
        marked = raw[_MARK_AT:_CHECK_AT] == _MARKED
        if raw != _NO_RECORD and (state != EMPTY or marked):  # the state byte is what is wrong
            if _decode(raw) is not None:
                self.states[chunk.index] = CLAIMED
            return raw[:_MARK_AT] == _encode(chunk)[:_MARK_AT]
        if not 0 < chunk.size <= MAX_CHUNK or self._overlaps(chunk):
            return False
        os.pwrite(self._fd, _encode(chunk), _record_at(chunk.index))
        self.states[chunk.index] = CLAIMED
        return True

    def mark(self, index: int) -> None:
        """Note that the bytes of slot *index* are in place."""
        os.pwrite(self._fd, _MARKED, _record_at(index) + _MARK_AT)

    def unmark(self, index: int) -> None:
        """Note that the bytes of slot *index* are about to go."""
        os.pwrite(self._fd, _UNMARKED, _record_at(index) + _MARK_AT)

    def age(self) -> None:
        """Halve every use byte. Lost updates are harmless: uses are hints."""
        self.uses[:] = self.uses.tobytes().translate(_AGED)

    def records(self) -> Iterator[tuple[int, Record]]:
        """Yield the claimed slots in order of their index."""
        for index, raw in self._raw_records():
            if self.states[index] != EMPTY and (record := _decode(raw)) is not None:
                yield index, record

    def ready_size(self) -> int:
        """Return the bytes of the slots that are ready or doubtful; at C speed, for displays."""
        records = os.pread(self._fd, self.chunk_count * _RECORD_SIZE, _RECORDS_AT)
        ready = self.states.tobytes().translate(_COUNTED)
        return sum(size for (size,) in compress(_SIZE_OF.iter_unpack(records), ready))

    def count(self, state: int) -> int:
        """Return how many slots are in *state*."""
        return self.states.tobytes().count(state)

    def _follow_growth(self) -> None:
        """Map the slots that another process added: they may be claimed, and in the way."""
        size = os.fstat(self._fd).st_size
        if size > _file_size(self.chunk_count):
            self.map((size - _RECORDS_AT) // _RECORD_SIZE)

    def _overlaps(self, chunk: Chunk) -> bool:
        """Say whether *chunk* reaches into a claimed neighbour, or one cannot be read.

        Slots are claimed in the order of their place, as chunk lists are sorted; so the nearest
        claimed slot on either side is the only one that can be in the way.
        """
        before = last_claimed(self.states, chunk.index)
        if before is not None:
            record = self.record(before)
            if record is None or record.offset + record.size > chunk.offset:
                return True
        after = first_claimed(self.states, chunk.index + 1)
        if after is not None:
            record = self.record(after)
            if record is None or record.offset < chunk.stop:
                return True
        return False

    def _raw(self, index: int) -> bytes:
        place, raw = _record_at(index), bytearray(_RECORD_SIZE)
        try:
            if os.preadv(self._fd, [raw], place, os.RWF_NOWAIT) == _RECORD_SIZE:
                return bytes(raw)
        except BlockingIOError:  # the next record that is asked for may be anywhere near
            os.posix_fadvise(self._fd, place & -_AROUND, _AROUND, os.POSIX_FADV_WILLNEED)
        except OSError:  # a file system that does not know the question, or a bad block
            pass
        try:
            return os.pread(self._fd, _RECORD_SIZE, place)
        except OSError:  # a bad block: as good as a damaged record
            return b""

    def _raw_records(self) -> Iterator[tuple[int, bytes]]:
        """Yield slot numbers and record bytes, skipping long runs that were never claimed."""
        step = 4096
        for start in range(0, self.chunk_count, step):
            stop = min(start + step, self.chunk_count)
            if not any(self.states[start:stop]):
                continue
            block = os.pread(self._fd, (stop - start) * _RECORD_SIZE, _record_at(start))
            for index in range(start, stop):
                at = (index - start) * _RECORD_SIZE
                yield index, block[at : at + _RECORD_SIZE]


def _file_size(chunk_count: int) -> int:
    return _RECORDS_AT + chunk_count * _RECORD_SIZE


def _record_at(index: int) -> int:
    return _RECORDS_AT + index * _RECORD_SIZE


def _encode(chunk: Chunk) -> bytes:
    digest = chunk.digest
    body = _RECORD.pack(digest.raw, chunk.offset, chunk.size, _ALGORITHMS[digest.algorithm])
    return body + _UNMARKED + (zlib.crc32(body) & 0xFFFF).to_bytes(2, "little")


def _decode(raw: bytes) -> Record | None:
    body = raw[:_MARK_AT]
    if len(raw) != _RECORD_SIZE or raw[_CHECK_AT:] != (zlib.crc32(body) & 0xFFFF).to_bytes(
        2, "little"
    ):
        return None
    digest, offset, size, number = _RECORD.unpack(body)
    if number not in _BY_NUMBER or not 0 < size <= MAX_CHUNK:
        return None
    marked = raw[_MARK_AT:_CHECK_AT] == _MARKED
    return Record(Digest(_BY_NUMBER[number], digest), offset, size, marked)


def last_claimed(states: memoryview, stop: int) -> int | None:
    """Return the last slot before *stop* that is not EMPTY: windows grow outward, then halve."""
    step = 1  # a reader's next chunk follows its last one
    while stop > 0:
        start = max(0, stop - step)
        if any_claimed(states, start, stop):
            while stop - start > 1:
                middle = (start + stop) // 2
                if any_claimed(states, middle, stop):
                    start = middle
                else:
                    stop = middle
            return start
        stop, step = start, min(8 * step, 1 << 20)
    return None


def first_claimed(states: memoryview, start: int) -> int | None:
    """Return the first slot from *start* on that is not EMPTY."""
    step = 64
    while start < len(states):
        stop = min(len(states), start + step)
        if any_claimed(states, start, stop):
            while stop - start > 1:
                middle = (start + stop) // 2
                if any_claimed(states, start, middle):
                    stop = middle
                else:
                    start = middle
            return start
        start, step = stop, min(8 * step, 1 << 20)
    return None


def any_claimed(states: memoryview, start: int, stop: int) -> bool:
    """Say whether a slot in ``[start, stop)`` is not EMPTY, at the speed of memcmp."""
    return states[start:stop].tobytes() != _ZEROS[: stop - start]


_ZEROS = bytes(1 << 20)
