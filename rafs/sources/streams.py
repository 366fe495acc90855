"""Streams of bytes in blocks: verified, decompressed, read ahead, and taken apart."""

from __future__ import annotations

import hashlib
import queue
import threading
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import zstandard

from chunkstore import Algorithm, Buffer, Digest
from rafs.errors import BadSource

BLOCK = 1 << 20
"""Bytes that are read or decompressed at a time."""

AHEAD = 8
"""Blocks that may lie ready: enough that decompression and packing seldom wait for each other."""

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
"""How they begin."""

_SKIPPABLE = range(0x50, 0x60)
"""First bytes of frames that zstd passes over, with the same three behind each."""

_GZIP_WINDOW = 31


def blocks_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield what is in *file* from here on."""
    while block := file.read(BLOCK):
        yield block


def verified(
    blocks: Iterable[bytes], digest: Digest, size: int, what: str
) -> Generator[bytes, None, None]:
    """Yield *blocks*; raise BadSource in the end, or as soon as it is clear, if they do not fit."""
    hasher = {Algorithm.SHA256: hashlib.sha256}[digest.algorithm]()
    seen = 0
    for block in blocks:
        seen += len(block)
        if seen > size:
            raise BadSource(f"{what} has more than the {size} bytes it should have")
        hasher.update(block)
        yield block
    if seen != size or hasher.digest() != digest.raw:
        raise BadSource(f"{what} does not match its digest: {seen} bytes of {size}")


def plain(blocks: Iterable[bytes], what: str) -> Generator[bytes, None, None]:
    """Yield what *blocks* hold, decompressed where their first bytes say so; raises BadSource."""
    blocks = iter(blocks)
    first = next(blocks, b"")
    source = _Chained(first, blocks)
    if first.startswith(GZIP):
        yield from _gunzip(source, what)
    elif first.startswith(ZSTD) or (first[1:4] == b"\x2a\x4d\x18" and first[0] in _SKIPPABLE):
        yield from _unzstd(source, what)
    else:
        if first:
            yield first
        yield from blocks


@contextmanager
def read_ahead(blocks: Iterable[Buffer]) -> Iterator[Iterator[Buffer]]:
    """Give an iterator over *blocks* that a thread fills; what it raises comes out there."""
    ready: queue.Queue[Buffer | BaseException | None] = queue.Queue(AHEAD)
    stopped = threading.Event()

    def work() -> None:
        end: BaseException | None = None
        try:
            for block in blocks:
                ready.put(block)
                if stopped.is_set():
                    return
        except BaseException as exc:  # noqa: BLE001  # raised again where the blocks are wanted
            end = exc
        ready.put(end)

    def taken() -> Iterator[Buffer]:
        while (block := ready.get()) is not None:
            if isinstance(block, BaseException):
                raise block
            yield block

    thread = threading.Thread(target=work, name="naiad-read", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        stopped.set()
        while thread.is_alive():
            _empty(ready)
            thread.join(0.01)


class Stream:
    """Blocks as a stream that is taken piece by piece."""

    def __init__(self, blocks: Iterable[Buffer], what: str) -> None:
        self.what = what
        self.position = 0
        self._blocks = iter(blocks)
        self._rest = memoryview(b"")

    def take(self, size: int) -> Buffer:
        """Return the next *size* bytes; raises BadSource where fewer are left."""
        found = self.some(size)
        if len(found) == size:
            return found
        parts = [found]
        missing = size - len(found)
        while missing:
            part = self.some(missing)
            if not part:
                raise BadSource(
                    f"{self.what} ends at byte {self.position}, in the middle of a file"
                )
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def some(self, limit: int) -> memoryview:
        """Return some next bytes, at most *limit*; none at the end."""
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return memoryview(b"")
            self._rest = memoryview(block)
        part, self._rest = self._rest[:limit], self._rest[limit:]
        self.position += len(part)
        return part

    def skip(self, size: int) -> None:
        """Pass over *size* bytes; raises BadSource where fewer are left."""
        while size:
            part = self.some(size)
            if not part:
                raise BadSource(
                    f"{self.what} ends at byte {self.position}, in the middle of a file"
                )
            size -= len(part)

    def drain(self) -> None:
        """Pass over all that is left."""
        while self.some(BLOCK):
            pass


class _Chained:
    """Blocks with a first one put back, as a file that can only be read."""

    def __init__(self, first: bytes, blocks: Iterator[bytes]) -> None:
        self._first = first
        self._blocks = blocks

    def read(self, size: int = -1) -> bytes:
        """Return a block, whatever *size*; none at the end."""
        block, self._first = self._first, b""
        return block or next(self._blocks, b"")


def _gunzip(source: _Chained, what: str) -> Iterator[bytes]:
    """Decompress gzip members one after the other; zeros may pad the end."""
    data = source.read()
    try:
        while data:
            decoder = zlib.decompressobj(_GZIP_WINDOW)
            while not decoder.eof:
                if part := decoder.decompress(data, BLOCK):
                    yield part
                data = decoder.unconsumed_tail or (b"" if decoder.eof else source.read())
                if not data and not decoder.eof and not part:
                    raise BadSource(f"{what} ends in the middle of its gzip data")
            data = decoder.unused_data.lstrip(b"\0")
            while not data and (more := source.read()):
                data = more.lstrip(b"\0")
    except zlib.error as exc:
        raise BadSource(f"{what} is damaged gzip data: {exc}") from exc


def _unzstd(source: _Chained, what: str) -> Iterator[bytes]:
    """Decompress zstd frames. That the data is cut shows only in what it holds."""
    decoder = zstandard.ZstdDecompressor()
    try:
        with decoder.stream_reader(source, read_across_frames=True) as reader:  # type: ignore[arg-type]  # it only calls read
            while part := reader.read(BLOCK):
                yield part
    except zstandard.ZstdError as exc:
        raise BadSource(f"{what} is damaged zstd data: {exc}") from exc


def _empty(ready: queue.Queue[Buffer | BaseException | None]) -> None:
    try:
        while True:
            ready.get_nowait()
    except queue.Empty:
        return
