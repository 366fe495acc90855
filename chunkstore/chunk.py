"""Blob, Chunk and Extent: the values that metadata, cache, origins and peers speak of."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from .digest import Digest
from .errors import Malformed

CHUNKS_PER_BLOB = 1 << 24
"""RAFS v6 numbers a blob's chunks with 24 bits."""

MIN_CHUNK, MAX_CHUNK = 4 << 10, 16 << 20
"""Chunk sizes that RAFS allows, in bytes. A last chunk may be shorter."""

_BLOB_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,254}")


class Codec(enum.Enum):
    """How a chunk is stored; values are the numbers that RAFS gives them."""

    NONE = 0
    LZ4 = 1
    GZIP = 2
    ZSTD = 3


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of chunk data, named by its SHA-256 (or, by other builders, any file name)."""

    id: str
    size: int
    """Bytes of its decoded address space."""
    stored_size: int
    """Bytes of the stored chunk data; the file may go on with metadata behind it. 0: not known."""
    chunk_count: int

    def __post_init__(self) -> None:
        if not _BLOB_ID.fullmatch(self.id):
            raise Malformed(f"a blob id that is no file name: {self.id[:100]!r}")
        if not (0 <= self.chunk_count <= CHUNKS_PER_BLOB and 0 <= self.size <= 1 << 44):
            raise Malformed(f"blob {self.id}: {self.chunk_count} chunks, {self.size} bytes")


@dataclass(frozen=True, slots=True)
class Chunk:
    """The unit of fetch, verification, caching and sharing: a range of a blob's decoded space."""

    index: int
    """Its number in the blob's own chunk list, whatever part of it a bootstrap lists."""
    digest: Digest
    """Of the decoded bytes."""
    offset: int
    """Where it starts in the decoded blob."""
    size: int
    """Decoded bytes."""
    stored_offset: int
    """Where its stored unit starts in the blob file."""
    stored_size: int
    """Bytes of its stored unit."""
    codec: Codec
    unit_offset: int = 0
    """Where it starts in the decoded unit: not 0 only where several chunks are stored as one."""
    unit_size: int = 0
    """Decoded bytes of the stored unit; 0 where the unit is this chunk alone."""

    @property
    def stop(self) -> int:
        """Where it ends in the decoded blob."""
        return self.offset + self.size

    @property
    def stored_stop(self) -> int:
        """Where its stored unit ends in the blob file."""
        return self.stored_offset + self.stored_size


@dataclass(frozen=True, slots=True)
class Extent:
    """The part ``[start, stop)`` of a chunk that a read needs; a hole reads as zeros."""

    blob: Blob | None
    """None in a hole."""
    chunk: Chunk | None
    """None in a hole."""
    start: int
    """From the chunk's first byte."""
    stop: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.stop - self.start
