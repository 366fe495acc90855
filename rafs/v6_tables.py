"""The tables that Nydus adds to EROFS: extended superblock, devices, blobs, chunks, prefetch."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from chunkstore import MAX_CHUNK, MIN_CHUNK, Algorithm, Blob, Buffer, Codec, Malformed

from . import erofs
from .erofs import bad
from .errors import Unsupported

EXT = struct.Struct("<QQIIQQQII200s")
EXT_OFFSET = erofs.SUPER_OFFSET + erofs.SUPER.size
BLOB = struct.Struct("<64sIIIIIIQQIIQQQ32s32sQ8sI36s")
CHUNK = struct.Struct("<32sIIIIQQQII")
CHUNK_KEY = struct.Struct("<I36xI")
"""Of a chunk table entry from byte 32 on: blob index, chunk index."""
CHUNK_PLACE = struct.Struct("<I8xI8xQ")
"""Of a chunk table entry from byte 32 on: blob index, decoded size, decoded offset."""
CHUNK_SPOT = struct.Struct("<I8xI8xQ8xI")
"""Of a chunk table entry from byte 32 on: blob index, decoded size, decoded offset, chunk index."""
KEY_OFFSET = 32
CHUNK_KEYS = struct.Struct("<32xI36xI4x")
CHUNK_OFFSETS = struct.Struct("<32xI20xQ16x")
"""Of whole entries: blob index and chunk index, blob index and decoded offset."""
CHUNK_FACTS = struct.Struct("<32xIIIIQQ8xI4x")
"""Of whole entries, all but the digest and what is of files."""
PREFETCH = struct.Struct("<I")

MAX_BLOBS = 254
"""Nydus's own builder stops here; a device id has 8 bits and 0 is the bootstrap."""
MAX_BLOB_ID = 64
PLACEHOLDER = "x" * MAX_BLOB_ID
"""A bootstrap inside a blob says this for the blob's id, which is the hash of what holds it."""
MAX_PREFETCH = 1 << 20
"""Inodes to fetch ahead; each costs a few bytes of memory while the image is open."""
MAX_FILE = 2 << 30
"""Bytes of a bootstrap."""

CODEC_FLAGS = {Codec.NONE: 0x1, Codec.LZ4: 0x2, Codec.GZIP: 0x40, Codec.ZSTD: 0x80}
ALGORITHM_FLAGS = {Algorithm.BLAKE3: 0x4, Algorithm.SHA256: 0x8}
ALGORITHM_NUMBERS = {Algorithm.BLAKE3: 0, Algorithm.SHA256: 1}
EXPLICIT_IDS, HAS_XATTR, INLINED_DIGEST = 0x10, 0x20, 0x100
TARFS, NO_CIPHER = 0x200, 0x100_0000

ALIGNED, INLINED_META, CI_V2, ZRAN = 0x1, 0x2, 0x4, 0x8
SEPARATE, FEATURE_INLINED_DIGEST, FEATURE_TARFS, BATCH, ENCRYPTED = 0x10, 0x20, 0x40, 0x80, 0x100
EXTERNAL = 0x800
TAR_HEADER, HAS_TOC, CAP_TAR_TOC = 0x1000_0000, 0x2000_0000, 0x4000_0000
"""Features of a blob."""

COMPRESSED, HOLE, CHUNK_ENCRYPTED, CHUNK_BATCH = 0x1, 0x2, 0x4, 0x8
"""Flags of a chunk."""

_T = TypeVar("_T")

_UNREADABLE = {
    ZRAN: "a zran blob (an ordinary image layer)",
    FEATURE_TARFS: "a tarfs blob (without digests)",
    ENCRYPTED: "an encrypted blob",
    EXTERNAL: "an external blob",
}
_KNOWN = 0xFFF
"""Features in the low 16 bits must be understood by who reads the blob."""
_CODECS = {codec.value: codec for codec in Codec}
_ALGORITHMS = {number: algorithm for algorithm, number in ALGORITHM_NUMBERS.items()}


@dataclass(frozen=True, slots=True)
class BlobEntry:
    """What the blob table says of a blob."""

    blob: Blob
    chunk_size: int
    """The largest of its chunks."""
    codec: Codec
    """Of its chunks, where they are compressed at all."""
    algorithm: Algorithm = Algorithm.BLAKE3
    features: int = ALIGNED | CAP_TAR_TOC
    ci_codec: Codec = Codec.NONE
    ci_offset: int = 0
    """Where the blob file keeps its own list of chunks."""
    ci_stored_size: int = 0
    ci_size: int = 0
    toc_size: int = 0
    """Bytes at the end of the blob file that hold its table of contents; 0: none."""
    toc_digest: bytes = bytes(32)
    """SHA-256 of these bytes."""
    meta_digest: bytes = bytes(32)
    meta_size: int = 0

    @property
    def is_batched(self) -> bool:
        """Say whether several chunks may be stored as one, which only the blob's CI can tell."""
        return bool(self.features & BATCH)


def pack_device(entry: BlobEntry, blocks: int, mapped: int) -> bytes:
    """Return a blob's device slot; *mapped* is its first block in the flat address space."""
    return erofs.DEVICE.pack(entry.blob.id.encode(), blocks, mapped, b"")


def pack_blob(index: int, entry: BlobEntry) -> bytes:
    """Return the blob table's entry number *index*."""
    blob = entry.blob
    return BLOB.pack(
        blob.id.encode(),
        index,
        entry.chunk_size,
        blob.chunk_count,
        entry.codec.value,
        ALGORITHM_NUMBERS[entry.algorithm],
        entry.features,
        blob.stored_size,
        blob.size,
        entry.toc_size,
        entry.ci_codec.value,
        entry.ci_offset,
        entry.ci_stored_size,
        entry.ci_size,
        entry.toc_digest,
        entry.meta_digest,
        entry.meta_size,
        bytes(8),
        0,
        b"",
    )


def unpack_blob(buffer: Buffer, offset: int, index: int) -> BlobEntry:
    """Read the blob table's entry number *index*, which starts at *offset*."""
    fields = BLOB.unpack_from(buffer, offset)
    what = f"blob {index}"
    if fields[1] != index:
        raise bad(what, offset, f"calls itself blob {fields[1]}")
    if why := unreadable(fields[6] | (ENCRYPTED if fields[18] else 0)):
        raise Unsupported(f"{what} at byte {offset}: {why}")
    try:
        return BlobEntry(
            blob=Blob(fields[0].rstrip(b"\0").decode("ascii"), fields[8], fields[7], fields[3]),
            chunk_size=fields[2],
            codec=_CODECS[fields[4]],
            algorithm=_ALGORITHMS[fields[5]],
            features=fields[6],
            ci_codec=_CODECS[fields[10]],
            ci_offset=fields[11],
            ci_stored_size=fields[12],
            ci_size=fields[13],
            toc_size=fields[9],
            toc_digest=fields[14],
            meta_digest=fields[15],
            meta_size=fields[16],
        )
    except (KeyError, UnicodeDecodeError, Malformed) as exc:
        raise bad(what, offset, f"no blob: {exc}") from exc


def unreadable(features: int) -> str | None:
    """Say why a blob with these *features* cannot be read; None if it can."""
    for feature, why in _UNREADABLE.items():
        if features & feature:
            return f"{why} is not supported"
    if unknown := features & 0xFFFF & ~_KNOWN:
        return f"unknown features {unknown:#x}"
    return None


def named(entry: BlobEntry, within: str) -> BlobEntry:
    """Return *entry*; the blob that a bootstrap lies in gets its name, *within*."""
    if not within or entry.blob.id != PLACEHOLDER:
        return entry
    return replace(entry, blob=replace(entry.blob, id=within))


@dataclass(frozen=True, slots=True)
class Superblock:
    """What both superblocks say, checked."""

    root: int
    inode_count: int
    meta: int
    """Byte that nid 0 would start at."""
    shared_xattrs: int
    """Byte that shared xattr 0 starts at; 0: there are none."""
    flags: int
    codec: Codec
    algorithm: Algorithm
    chunk_size: int
    blobs: tuple[int, int]
    """Start and count of the blob table's entries."""
    chunks: tuple[int, int]
    prefetch: tuple[int, int]
    built: tuple[int, int] = (0, 0)
    """Seconds and nanoseconds that compact inodes have for a time."""
    blocks: int = 0
    """Of the whole file; only for packing."""


def pack_super(facts: Superblock, devices: int) -> bytes:
    """Return both superblocks and all before them."""
    core = erofs.SUPER.pack(
        erofs.MAGIC,
        0,
        erofs.COMPAT_RAFS_V6,
        erofs.BLOCK.bit_length() - 1,
        0,
        facts.root,
        facts.inode_count,
        *facts.built,
        facts.blocks if devices else 0,  # nydusd refuses blocks without devices
        facts.meta // erofs.BLOCK,
        0,
        b"",
        b"",
        erofs.INCOMPAT,
        0,
        devices,
        erofs.DEVICE_SLOT,
        b"",
    )
    flags = facts.flags | CODEC_FLAGS[facts.codec] | ALGORITHM_FLAGS[facts.algorithm]
    ext = EXT.pack(
        flags | NO_CIPHER | EXPLICIT_IDS,
        facts.blobs[0],
        facts.blobs[1] * BLOB.size,
        facts.chunk_size,
        facts.chunks[0],
        facts.chunks[1] * CHUNK.size,
        facts.prefetch[0] if facts.prefetch[1] else 0,
        facts.prefetch[1] * PREFETCH.size,
        0,
        b"",
    )
    return bytes(erofs.SUPER_OFFSET) + core + ext


def unpack_super(buffer: Buffer) -> Superblock:
    """Read both superblocks; raises BadImage, Unsupported."""
    size = len(buffer)
    if size < erofs.BLOCK:
        raise bad("superblock", erofs.SUPER_OFFSET, f"the whole file has {size} bytes")
    core = erofs.SUPER.unpack_from(buffer, erofs.SUPER_OFFSET)
    _check_core(core)
    ext = EXT.unpack_from(buffer, EXT_OFFSET)
    flags, chunk_size = ext[0], ext[3]
    if flags & TARFS:
        raise Unsupported(f"superblock at byte {EXT_OFFSET}: a tarfs image has no chunk digests")
    if chunk_size & (chunk_size - 1) or not MIN_CHUNK <= chunk_size <= MAX_CHUNK:
        raise bad("superblock", EXT_OFFSET, f"a chunk size of {chunk_size}")
    facts = Superblock(
        root=core[5],
        inode_count=core[6],
        meta=core[10] * erofs.BLOCK,
        shared_xattrs=core[11] * erofs.BLOCK,
        built=(core[7], core[8]),
        flags=flags,
        codec=_only(CODEC_FLAGS, flags, "codec"),
        algorithm=_only(ALGORITHM_FLAGS, flags, "digest"),
        chunk_size=chunk_size,
        blobs=_table("blob table", (ext[1], ext[2], BLOB.size), size),
        chunks=_table("chunk table", (ext[4], ext[5], CHUNK.size), size),
        # Old builders leave a size with no offset behind where nothing is to be prefetched.
        prefetch=_table("prefetch table", (ext[6], ext[7] if ext[6] else 0, PREFETCH.size), size),
    )
    if facts.blobs[1] > 255:
        raise bad("blob table", ext[1], f"{facts.blobs[1]} blobs, 255 fit")
    if facts.meta + facts.root * erofs.SLOT >= size:
        raise bad("superblock", erofs.SUPER_OFFSET, f"the root, nid {facts.root}, is outside")
    return facts


def unpack_prefetch(buffer: Buffer, offset: int, count: int) -> tuple[int, ...]:
    """Read *count* nids from *offset* on; raises BadImage when nobody would list so many."""
    if count > MAX_PREFETCH:
        raise bad("prefetch table", offset, f"{count} inodes, {MAX_PREFETCH} are the most")
    table = memoryview(buffer)[offset : offset + count * PREFETCH.size]
    return tuple(nid for (nid,) in PREFETCH.iter_unpack(table))


def _check_core(core: Sequence[int]) -> None:
    if core[0] != erofs.MAGIC:
        raise bad("superblock", erofs.SUPER_OFFSET, f"magic {core[0]:#x}")
    if 1 << core[3] != erofs.BLOCK:
        raise Unsupported(
            f"superblock at byte {erofs.SUPER_OFFSET}: blocks of 2^{core[3]} bytes, as tarfs has"
        )
    if core[14] != erofs.INCOMPAT or not core[2] & erofs.COMPAT_RAFS_V6:
        raise Unsupported(
            f"superblock at byte {erofs.SUPER_OFFSET}: an EROFS image, but not RAFS v6 "
            f"(features {core[2]:#x}, {core[14]:#x})"
        )


def _only(names: dict[_T, int], flags: int, what: str) -> _T:
    found = [name for name, flag in names.items() if flags & flag]
    if len(found) != 1:
        raise bad("superblock", EXT_OFFSET, f"{len(found)} {what} flags in {flags:#x}")
    return found[0]


def _table(what: str, place: tuple[int, int, int], file_size: int) -> tuple[int, int]:
    offset, size, unit = place
    if size == 0:
        return 0, 0
    if size % unit or offset < erofs.BLOCK or offset + size > file_size:
        raise bad(what, offset, f"{size} bytes in a file of {file_size}")
    return offset, size // unit
