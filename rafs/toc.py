"""The table of contents at the end of a blob, and the bootstrap that may stand before it.

A blob that Nydus closed with a table of contents ends like this, each part before its tar header::

    [data][image.blob] [CI, CI header][blob.meta] [digests][blob.digest]
    [bootstrap][image.boot] [entries][rafs.blob.toc]

Older builders write no table; then ``image.boot`` itself is the last header. Everything here is
found from the end, with a few reads of bounded size.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import zstandard

from chunkstore import Algorithm, Codec, Digest

from .errors import BadImage, Unsupported

Read = Callable[[int, int], bytes]
"""Returns a blob's stored bytes ``[start, stop)``, all of them."""

HEADER_SIZE = 512
ENTRY = struct.Struct("<II16s32sQQQ48s")
"""flags, reserved, name, SHA-256 of the plain content, offset, stored size, plain size."""

MAX_TOC = 64 << 10
"""Bytes of a table of contents; Nydus reads no more either."""
MAX_BOOTSTRAP = 2 << 30
"""Bytes of a bootstrap, as Nydus limits it."""

MAX_WINDOW = 128 << 20
"""Bytes of memory that a compressed bootstrap may ask for; zstd's own default limit."""

BOOTSTRAP, CONTENTS, DIGESTS = "image.boot", "rafs.blob.toc", "blob.digest"

_STEP = 1 << 20
_CODECS = {0x1: Codec.NONE, 0x2: Codec.ZSTD, 0x4: Codec.LZ4}


@dataclass(frozen=True, slots=True)
class TocEntry:
    """One part of a blob, as its table of contents lists it."""

    name: str
    codec: Codec
    digest: bytes
    """SHA-256 of the plain content; zeros where nobody said."""
    offset: int
    """In the blob file."""
    stored_size: int
    size: int


def contents(size: int, read: Read) -> tuple[TocEntry, ...]:
    """Return what the end of a blob of *size* bytes says is in it; empty where it says nothing.

    Raises BadImage when there is a table and it is broken.
    """
    if size < HEADER_SIZE:
        return ()
    found = tar_header(read(size - HEADER_SIZE, size))
    if found is None:
        return ()
    name, length = found
    stop = size - HEADER_SIZE
    if name == BOOTSTRAP:
        return (
            _checked(TocEntry(name, Codec.NONE, bytes(32), stop - length, length, length), stop),
        )
    if name != CONTENTS:
        return ()
    if not 0 < length <= min(MAX_TOC, stop) or length % ENTRY.size:
        raise BadImage(f"table of contents before byte {stop}: {length} bytes are none")
    return tuple(_entries(read(stop - length, stop), stop - length))


def inline_bootstrap(size: int, read: Read, out: BinaryIO) -> Digest | None:
    """Write the bootstrap inside a blob of *size* bytes to *out*; return its SHA-256.

    Returns None, with nothing written, where the blob holds none. Raises BadImage when it is not
    what the table of contents says; what *out* got by then is worthless. Memory stays bounded.
    """
    found = [entry for entry in contents(size, read) if entry.name == BOOTSTRAP]
    if not found:
        return None
    entry = found[0]
    hasher, written = hashlib.sha256(), 0
    for part in _plain(entry, read):
        written += len(part)
        if written > entry.size:
            raise _broken(entry, f"more than the {entry.size} bytes it should have")
        hasher.update(part)
        out.write(part)
    if written != entry.size:
        raise _broken(entry, f"{written} bytes of {entry.size}")
    if any(entry.digest) and hasher.digest() != entry.digest:
        raise _broken(entry, "its digest does not match")
    return Digest(Algorithm.SHA256, hasher.digest())


def tar_header(block: bytes) -> tuple[str, int] | None:
    """Return name and size that a 512-byte tar header gives a plain file; None if it is none."""
    digits = block[124:136].strip(b" \0")
    if (
        len(block) != HEADER_SIZE
        or block[257:262] != b"ustar"
        or block[156:157] not in (b"0", b"\0")
    ):
        return None
    if not digits.isdigit() or digits.translate(None, b"01234567"):
        return None
    return block[:100].rstrip(b"\0").decode(errors="replace"), int(digits, 8)


def _entries(table: bytes, start: int) -> Iterator[TocEntry]:
    for number, fields in enumerate(ENTRY.iter_unpack(table)):
        flags, _, raw, digest, offset, stored_size, size, _ = fields
        at = start + number * ENTRY.size
        try:
            name = raw.rstrip(b"\0").decode("ascii")
            codec = _CODECS[flags & 0xF]
        except (KeyError, UnicodeDecodeError) as exc:
            raise BadImage(f"table of contents at byte {at}: flags {flags:#x}, {raw!r}") from exc
        yield _checked(TocEntry(name, codec, digest, offset, stored_size, size), start)


def _checked(entry: TocEntry, limit: int) -> TocEntry:
    """Return *entry* unless it is a bootstrap that cannot lie before byte *limit*.

    Nobody reads the other parts by what stands here, and some builders get ``image.blob`` wrong.
    """
    if entry.name != BOOTSTRAP:
        return entry
    if entry.offset + entry.stored_size > limit:
        raise _broken(entry, f"{entry.stored_size} bytes before byte {limit}")
    if not 0 < entry.size <= MAX_BOOTSTRAP:
        raise _broken(entry, f"{entry.size} bytes, {MAX_BOOTSTRAP} are the most")
    return entry


def _plain(entry: TocEntry, read: Read) -> Iterator[bytes]:
    """Yield the plain content of *entry* in parts of bounded size."""
    source: _Stored | zstandard.ZstdDecompressionReader = _Stored(entry, read)
    if entry.codec is Codec.ZSTD:
        # A frame may ask for a window as large as its content; that much memory is the limit.
        inflater = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        source = inflater.stream_reader(source, read_size=_STEP)  # type: ignore[arg-type]  # it only calls read
    elif entry.codec is not Codec.NONE:
        raise Unsupported(f"{entry.name} at byte {entry.offset}: stored in {entry.codec.name}")
    try:
        while part := source.read(_STEP):
            yield part
    except zstandard.ZstdError as exc:
        raise _broken(entry, f"not zstd: {exc}") from exc


class _Stored:
    """The stored bytes of an entry as a file that reads on."""

    def __init__(self, entry: TocEntry, read: Read) -> None:
        self._read = read
        self._next, self._stop = entry.offset, entry.offset + entry.stored_size

    def read(self, size: int = _STEP) -> bytes:
        """Return the next bytes, at most *size*; none at the end."""
        start = self._next
        self._next = min(start + size, self._stop)
        return self._read(start, self._next) if start < self._next else b""


def _broken(entry: TocEntry, why: str) -> BadImage:
    return BadImage(f"{entry.name} at byte {entry.offset}: {why}")
