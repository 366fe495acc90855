"""The EROFS structures that RAFS v6 is made of: their layout on disk, and how to pack them.

Tables and reasons are in FORMAT.md. Everything is little-endian.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .errors import BadImage

BLOCK = 4096
"""Bytes of a block; RAFS v6 knows no other size for file trees."""

SLOT = 32
"""Bytes of an inode slot: a nid counts these from the start of the metadata area."""

SUPER = struct.Struct("<IIIBBHQQIIII16s16sIHHH38s")
SUPER_OFFSET = 1024
MAGIC = 0xE0F5_E1E2
COMPAT_RAFS_V6 = 0x4000_0000
INCOMPAT = 0x4 | 0x8
"""Chunk-based files and a device table, which is what RAFS v6 is."""

DEVICE = struct.Struct("<64sII56s")
DEVICE_SLOT = 11
"""Where the device table starts, in units of its own 128-byte entries."""
DEVICE_OFFSET = DEVICE_SLOT * DEVICE.size

FORMAT = struct.Struct("<H")
"""Begins every inode: bit 0 says extended, the others the data layout."""

COMPACT = struct.Struct("<HHHHI4xIIHH4x")
"""format, xattr units, mode, nlink, size, u, ino, uid, gid; no times."""

EXTENDED = struct.Struct("<HHH2xQIIIIqII16x")
"""format, xattr units, mode, size, u, ino, uid, gid, mtime, mtime_nsec, nlink."""

PLAIN, INLINE, CHUNKED = 0, 2, 4
"""Data layouts: whole blocks; whole blocks and a tail behind the inode; a chunk index array."""

CHUNK_INDEXES = 0x20
"""In a chunk-based inode's ``u``: the array holds 8-byte indexes, not 4-byte block addresses."""

INDEX = struct.Struct("<HHI")
"""A chunk index: low 16 bits of the chunk number | high 8 bits and device id | block."""
NO_BLOCK = 0xFFFF_FFFF
"""A chunk index with this block address is a hole."""

DIRENT = struct.Struct("<QHBB")
DIRENT_NID = struct.Struct("<Q")
DIRENT_NAME = struct.Struct("<8xH")
DIRENT_NAMES = struct.Struct("<8xH10xH")
"""Where the name of an entry starts in its block, and that of the next one."""

XATTR_HEADER = struct.Struct("<IB7x")
"""name filter, shared count; then the shared ids, then the inline entries."""
XATTR_ENTRY = struct.Struct("<BBH")
"""Bytes of the name's rest, number of its prefix, bytes of the value."""
XATTR_SHARED = struct.Struct("<I")

MAX_NAME = 255
MAX_TARGET = 4095
"""PATH_MAX without its NUL."""
MAX_XATTR_VALUE = 0xFFFF
"""The size field has 16 bits: one byte less than Linux allows."""
MAX_SIZE = (1 << 63) - 1

_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}


def prefix_of(name: bytes) -> int | None:
    """Return the number of the prefix that *name* begins with; None if EROFS has none for it."""
    for number, prefix in _PREFIXES.items():
        acl = number in (2, 3)
        if name == prefix if acl else name.startswith(prefix) and len(name) > len(prefix):
            return number
    return None


def prefix(number: int) -> bytes | None:
    """Return the prefix with that *number*; None if there is none."""
    return _PREFIXES.get(number)


def xattr_fault(name: bytes, value: bytes) -> str | None:
    """Say why an xattr cannot be stored; None if it can."""
    number = prefix_of(name)
    if number is None:
        return "EROFS has no prefix for this name"
    if b"\0" in name:
        return "a NUL in its name"
    if len(name) > MAX_NAME:
        return f"a name of {len(name)} bytes, {MAX_NAME} fit"
    if len(value) > MAX_XATTR_VALUE:
        return f"a value of {len(value)} bytes, {MAX_XATTR_VALUE} fit"
    return None


def xattr_size(xattrs: Mapping[bytes, bytes]) -> int:
    """Return the bytes that ``pack_xattrs`` would."""
    if not xattrs:
        return 0
    return XATTR_HEADER.size + sum(
        _round_up(
            XATTR_ENTRY.size + len(name) - len(_PREFIXES[prefix_of(name) or 1]) + len(value), 4
        )
        for name, value in xattrs.items()
    )


def pack_xattrs(xattrs: Mapping[bytes, bytes]) -> bytes:
    """Return an inode's xattr body, all inline, sorted by name; each must be free of faults."""
    if not xattrs:
        return b""
    body = bytearray(XATTR_HEADER.pack(0, 0))
    for name in sorted(xattrs):
        number = prefix_of(name) or 1
        rest, value = name[len(_PREFIXES[number]) :], xattrs[name]
        body += XATTR_ENTRY.pack(len(rest), number, len(value)) + rest + value
        body += bytes(-len(body) % 4)
    return bytes(body)


def xattr_units(size: int) -> int:
    """Return what an inode says of a xattr body of *size* bytes."""
    return (size - XATTR_HEADER.size) // 4 + 1 if size else 0


def xattr_bytes(units: int) -> int:
    """Return the size of the xattr body of an inode that says *units*."""
    return XATTR_HEADER.size + (units - 1) * 4 if units else 0


def blocks_of(names: Iterable[bytes]) -> tuple[int, int]:
    """Return how many full blocks a directory of these *names* fills, and the bytes of its tail."""
    full = used = 0
    for name in names:
        need = DIRENT.size + len(name)
        if used + need > BLOCK:
            full += 1
            used = 0
        used += need
    return full, used


def pack_directory(entries: Iterable[tuple[bytes, int, int]]) -> Iterator[bytes]:
    """Yield the blocks of a directory of (name, nid, kind), sorted by name; unpadded."""
    block: list[tuple[bytes, int, int]] = []
    used = 0
    for entry in entries:
        need = DIRENT.size + len(entry[0])
        if used + need > BLOCK:
            yield _pack_block(block)
            block, used = [], 0
        block.append(entry)
        used += need
    if block:
        yield _pack_block(block)


def _pack_block(entries: Sequence[tuple[bytes, int, int]]) -> bytes:
    fields: list[int] = []
    offset = len(entries) * DIRENT.size
    for name, nid, kind in entries:
        fields += (nid, offset, kind, 0)
        offset += len(name)
    return dirents(len(entries)).pack(*fields) + b"".join([entry[0] for entry in entries])


@functools.lru_cache(BLOCK // (DIRENT.size + 1))
def dirents(count: int) -> struct.Struct:
    """Return the layout of *count* directory entries: nid, name offset, kind, 0 for each."""
    return struct.Struct("<" + "QHBB" * count)


def pack_device_number(rdev: int) -> int:
    """Return *rdev* as Linux's ``new_encode_dev`` does."""
    major, minor = os.major(rdev), os.minor(rdev)
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor >> 8 & 0xFFF) << 20


def fits_device_number(rdev: int) -> bool:
    """Say whether ``pack_device_number`` loses nothing of *rdev*."""
    return not rdev or (0 <= rdev < 1 << 64 and device_number(pack_device_number(rdev)) == rdev)


def device_number(packed: int) -> int:
    """Return ``os.makedev`` of a packed device number."""
    return os.makedev(packed >> 8 & 0xFFF, (packed & 0xFF) | (packed >> 12 & 0xFFF00))


def round_slot(size: int) -> int:
    """Round up to a whole inode slot."""
    return _round_up(size, SLOT)


def round_block(size: int) -> int:
    """Round up to a whole block."""
    return _round_up(size, BLOCK)


def _round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def bad(what: str, offset: int, why: str) -> BadImage:
    """Return the error that every structural fault becomes."""
    return BadImage.at(what, offset, why)
