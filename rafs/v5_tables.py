"""RAFS v5 on disk: superblock, inodes, blob tables. Read only; the layout is in FORMAT.md.

Everything is little-endian and starts on multiples of 8 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from chunkstore import MAX_CHUNK, MIN_CHUNK, Algorithm, Blob, Buffer, Codec, Malformed

from .erofs import bad
from .errors import BadImage, Unsupported
from .v6_tables import ALGORITHM_FLAGS, BATCH, CODEC_FLAGS, BlobEntry, unreadable

SUPER = struct.Struct("<IIIIQQQQQIIIIQ")
SUPER_SIZE = 8192
MAGIC, VERSION = 0x5241_4653, 0x500
ALIGNMENT = 8

ROW = struct.Struct("<I")
"""Of the inode table: an inode's place in units of 8 bytes; also of the prefetch table: an ino."""

INODE = struct.Struct("<32x8xQII4xIQ8xQIIIHHIIq8x")
"""ino, uid, gid, mode, size, flags, nlink, first child, children, bytes of name, bytes of target,
rdev, mtime_nsec, mtime. A file's chunks count as its children."""
PARENT = struct.Struct("<Q")
"""At byte 32 of an inode."""
PARENT_OFFSET = 32

XATTR_FLAG, HOLES_FLAG = 0x4, 0x8

XATTRS = struct.Struct("<Q")
"""Bytes of the pairs that follow."""
PAIR = struct.Struct("<I")
"""Bytes of ``name NUL value``."""
MAX_XATTRS = 1 << 20
"""Bytes of one inode's xattrs; Linux has no room for more than 64 KiB of names alone."""

CHUNK_FLAGS = struct.Struct("<4xI")
CHUNK_FILE_OFFSET = struct.Struct("<32xQ")
"""Of a chunk record, which is laid out as in v6's chunk table, from byte 32 on."""

EXTENDED_BLOB = struct.Struct("<IIQQ40x")
"""chunk count, features, decoded size, stored size."""
READAHEAD = struct.Struct("<II")
"""Before each blob id of the blob table: a range to fetch ahead."""

MAX_BLOBS = 1 << 12
"""More than any image has layers; each costs an object when the image is opened."""
MAX_BLOB_LINE = READAHEAD.size + 256
"""Bytes of an entry of the blob table: a blob id is a file name."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Table:
    """A range of the bootstrap that holds *count* entries."""

    start: int
    size: int
    count: int

    @property
    def stop(self) -> int:
        """Where it ends."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Superblock:
    """What the superblock says, checked."""

    chunk_size: int
    inode_count: int
    codec: Codec
    algorithm: Algorithm
    inodes: Table
    prefetch: Table
    blobs: Table
    extended: Table


def is_v5(buffer: Buffer) -> bool:
    """Say whether *buffer* begins as RAFS before v6 does."""
    return len(buffer) >= 4 and ROW.unpack_from(buffer)[0] == MAGIC


def unpack_super(buffer: Buffer) -> Superblock:
    """Read the superblock; raises BadImage, Unsupported."""
    if len(buffer) <= SUPER_SIZE:
        raise bad("superblock", 0, f"the whole file has {len(buffer)} bytes")
    fields = SUPER.unpack_from(buffer)
    if fields[1] != VERSION:
        raise Unsupported(f"superblock at byte 4: RAFS version {fields[1]:#x}, naiad reads 5 and 6")
    if fields[2] != SUPER_SIZE:
        raise Unsupported(f"superblock at byte 8: {fields[2]} bytes of it, an old variant of v5")
    chunk_size = fields[3]
    if chunk_size & (chunk_size - 1) or not MIN_CHUNK <= chunk_size <= MAX_CHUNK:
        raise bad("superblock", 12, f"a chunk size of {chunk_size}")
    inodes = Table(fields[6], fields[9] * ROW.size, fields[9])
    if not 0 < fields[5] <= inodes.count:
        raise bad("superblock", 24, f"{fields[5]} inodes, {inodes.count} in the table")
    facts = Superblock(
        chunk_size=chunk_size,
        inode_count=fields[5],
        codec=_only(CODEC_FLAGS, fields[4], "codec"),
        algorithm=_only(ALGORITHM_FLAGS, fields[4], "digest"),
        inodes=inodes,
        prefetch=Table(fields[7], fields[10] * ROW.size, fields[10]),
        blobs=Table(fields[8], fields[11], 0),
        extended=Table(fields[13], fields[12] * EXTENDED_BLOB.size, fields[12]),
    )
    _check_tables(facts, len(buffer))
    return facts


def unpack_blobs(buffer: Buffer, facts: Superblock) -> tuple[BlobEntry, ...]:
    """Read the blob table and its extension; raises BadImage, Unsupported."""
    ids = list(_blob_ids(buffer, facts.blobs))
    if len(ids) > facts.extended.count:
        raise Unsupported(
            f"extended blob table at byte {facts.extended.start}: {facts.extended.count} of "
            f"{len(ids)} blobs, an old variant of v5"
        )
    return tuple(_blob(buffer, facts, number, name) for number, name in enumerate(ids))


def _blob_ids(buffer: Buffer, table: Table) -> Iterator[str]:
    if table.size > MAX_BLOBS * MAX_BLOB_LINE:
        raise bad("blob table", table.start, f"{table.size} bytes")
    data = bytes(buffer[table.start : table.stop])
    position, number = 0, 0
    while len(data) - position > READAHEAD.size:
        position += READAHEAD.size
        stop = data.find(b"\0", position)
        stop = len(data) if stop < 0 else stop
        number += 1
        try:
            yield data[position:stop].decode("ascii")
        except UnicodeDecodeError as exc:
            raise bad("blob table", table.start + position, "a blob id that is no text") from exc
        if number > MAX_BLOBS:
            raise bad("blob table", table.start, f"more than {MAX_BLOBS} blobs")
        position = stop + 1


def _blob(buffer: Buffer, facts: Superblock, number: int, name: str) -> BlobEntry:
    at = facts.extended.start + number * EXTENDED_BLOB.size
    count, features, size, stored_size = EXTENDED_BLOB.unpack_from(buffer, at)
    if features & BATCH or (why := unreadable(features)):
        why = "batched chunks are unknown to v5" if features & BATCH else why
        raise Unsupported(f"blob {number} at byte {at}: {why}")
    try:
        blob = Blob(name, size, stored_size, count)
    except Malformed as exc:
        raise bad(f"blob {number}", at, str(exc)) from exc
    return BlobEntry(blob, facts.chunk_size, facts.codec, facts.algorithm, features)


def _check_tables(facts: Superblock, size: int) -> None:
    tables = {
        "inode table": facts.inodes,
        "prefetch table": facts.prefetch,
        "blob table": facts.blobs,
        "extended blob table": facts.extended,
    }
    last = SUPER_SIZE
    for name, table in sorted(tables.items(), key=lambda item: item[1].start):
        if not table.size:
            continue
        if table.start < last:
            raise bad(name, table.start, f"overlaps what ends at byte {last}")
        if table.stop > size:
            raise bad(name, table.start, f"{table.size} bytes in a file of {size}")
        last = table.stop


def _only(names: dict[_T, int], flags: int, what: str) -> _T:
    found = [name for name, flag in names.items() if flags & flag]
    if not found:
        raise Unsupported(f"superblock at byte 16: no {what} in {flags:#x}, an old variant of v5")
    if len(found) > 1:
        raise bad("superblock", 16, f"{len(found)} {what} flags in {flags:#x}")
    return found[0]


def fault(row: int, offset: int, why: str) -> BadImage:
    """Return the error about the inode in that *row* of the inode table."""
    return bad(f"inode {row}", offset, why)
