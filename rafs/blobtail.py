"""The tail of a blob: what lets a blob be read, and checked, by those that have only the blob.

Behind the chunk data stand the list of chunks (CI) with its header, the chunks' digests, and a
table of contents, each before a tar header; FORMAT.md has the layout. Nydus reads chunks by the
CI alone, so a blob without this tail is none for it.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from chunkstore import Algorithm, Blob, Buffer, Chunk, Codec

from . import toc
from . import v6_tables as tables
from .erofs import BLOCK, round_block
from .errors import BadSource
from .v6_chunklist import Place
from .v6_tables import BlobEntry

CI = struct.Struct("<QQ")
"""A chunk in the CI: decoded place, stored place; each an offset with a size beside it."""
CI_HEADER = struct.Struct("<IIIIQQQQQI4032xI")
CI_MAGIC = 0xB10B_B10B

DATA, META, META_HEADER, DIGESTS = "image.blob", "blob.meta", "blob.meta.header", toc.DIGESTS

_FEATURES = (
    tables.ALIGNED
    | tables.FEATURE_INLINED_DIGEST
    | tables.TAR_HEADER
    | tables.HAS_TOC
    | tables.CAP_TAR_TOC
)
_MAX_STORED = 1 << 40
_MAX_DECODED = 1 << 44
_STEP = 4096
"""Chunks packed at a time."""

Write = Callable[[Buffer], object]


class Places(Protocol):
    """The places of a blob's chunks in order, as often as they are asked for."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Place]: ...


@dataclass(frozen=True, slots=True)
class Tail:
    """A blob's tail as it was written: what the blob table must say of it."""

    size: int
    """Bytes of the blob's decoded address space."""
    data_size: int
    chunk_count: int
    ci_offset: int
    ci_size: int
    toc_size: int
    toc_digest: bytes

    def entry(self, blob_id: str, chunk_size: int, codec: Codec, algorithm: Algorithm) -> BlobEntry:
        """Return the blob table's entry, now that the file is complete and has a name."""
        return BlobEntry(
            blob=Blob(blob_id, self.size, self.data_size, self.chunk_count),
            chunk_size=chunk_size,
            codec=codec,
            algorithm=algorithm,
            features=_FEATURES,
            ci_offset=self.ci_offset,
            ci_stored_size=self.ci_size,
            ci_size=self.ci_size,
            toc_size=self.toc_size,
            toc_digest=self.toc_digest,
        )


def encode_blob_tail(chunks: Sequence[Chunk], data_size: int, write: Write) -> Tail:
    """Write what follows *data_size* bytes of chunk data in a blob.

    *chunks* are all of the blob in the order of their numbers, which is their decoded order.
    Raises BadSource when they are not such, or too far apart for the format.
    """
    rows = [(c.index, c.offset, c.size, c.stored_offset, c.stored_size) for c in chunks]
    digests = b"".join(chunk.digest.raw for chunk in chunks)
    return encode_packed_tail(rows, digests, data_size, write)


def encode_packed_tail(chunks: Places, digests: Buffer, data_size: int, write: Write) -> Tail:
    """Do what ``encode_blob_tail`` does, for those who have the chunks' places and digests."""
    decoded = _check(chunks)
    writer = _Tail(write, data_size)
    # Nobody can check what stands here for the data, nor does Nydus: chunks have their digests.
    writer.entries.append((DATA, bytes(32), 0, data_size))
    writer.header(DATA, data_size)
    ci_offset = writer.position
    writer.part(META, map(_pack, chunks))
    ci_size = writer.position - ci_offset
    header = CI_HEADER.pack(
        CI_MAGIC, _FEATURES, 0, len(chunks), ci_offset, ci_size, ci_size, 0, 0, 0, CI_MAGIC
    )
    writer.part(META_HEADER, [header])
    writer.header(META, ci_size + len(header))
    start = writer.position
    writer.part(DIGESTS, [bytes(digests)])
    writer.header(DIGESTS, writer.position - start)
    contents = b"".join(
        toc.ENTRY.pack(1, 0, name.encode(), digest, offset, size, size, b"")
        for name, digest, offset, size in writer.entries
    )
    contents += tar_header(toc.CONTENTS, len(contents))
    writer.write(contents)
    return Tail(
        size=decoded,
        data_size=data_size,
        chunk_count=len(chunks),
        ci_offset=ci_offset,
        ci_size=ci_size,
        toc_size=len(contents),
        toc_digest=hashlib.sha256(contents).digest(),
    )


def tar_header(name: str, size: int) -> bytes:
    """Return the tar header of a plain file; the same for all but *name* and *size*."""
    octal = b"%011o\0" % size if size < 1 << 33 else b"\x80" + size.to_bytes(11, "big")
    block = bytearray(toc.HEADER_SIZE)
    block[: len(name)] = name.encode()
    block[100:108] = b"0000644\0"
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = octal
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = b"0"
    block[257:265] = b"ustar  \0"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


class _Tail:
    """Writes parts and remembers where each began."""

    def __init__(self, write: Write, position: int) -> None:
        self._write = write
        self.position = position
        self.entries: list[tuple[str, bytes, int, int]] = []
        """Name, SHA-256, offset and size of each part."""

    def write(self, data: Buffer) -> None:
        """Write *data*."""
        self._write(data)
        self.position += len(data)

    def part(self, name: str, records: Iterable[bytes]) -> None:
        """Write a part made of *records*."""
        start, digest = self.position, hashlib.sha256()
        for data in _batches(records):
            digest.update(data)
            self.write(data)
        self.entries.append((name, digest.digest(), start, self.position - start))

    def header(self, name: str, size: int) -> None:
        """Write the tar header of what was written last."""
        self.write(tar_header(name, size))


def _batches(records: Iterable[bytes]) -> Iterator[bytes]:
    records = iter(records)
    while batch := b"".join(itertools.islice(records, _STEP)):
        yield batch


def _check(chunks: Places) -> int:
    """Return the bytes of the decoded address space."""
    if not len(chunks):
        raise BadSource("a blob without chunks")
    stop = stored = 0
    for number, (index, offset, size, stored_offset, stored_size) in enumerate(chunks):
        if index != number or offset < stop or offset % BLOCK:
            raise BadSource(f"chunk {number}: number {index} at byte {offset}")
        stop, stored = offset + size, max(stored, stored_offset + stored_size)
    if stored > _MAX_STORED or stop > _MAX_DECODED:
        raise BadSource(f"a blob of {stored} bytes, {stop} decoded: 1 TiB and 16 TiB fit")
    return round_block(stop)


def _pack(chunk: Place) -> bytes:
    _, offset, size, stored_offset, stored_size = chunk
    size, stored_size = size - 1, stored_size - 1
    return CI.pack(
        offset | (size & 0xF_FFFF) << 44 | (size >> 20) << 8,
        stored_offset | (stored_size & 0xF_FFFF) << 44 | (stored_size >> 20) << 40,
    )
