"""FileStore: one version of a file in the blob cache, with the digests of its pieces beside it.

::

    blobs/NAME.data, .map    its pieces, as any blob's chunks
    blobs/NAME.digests       "naiadfil", length of a JSON document and the document: what it is;
                             from 4096 on, 40 bytes per piece: digest, CRC-32 of it, zeros

Digests are kept apart because the map must not be believed alone: somebody's image may name this
blob's id and fill it with chunks of its own. A piece is here when the map's record of it agrees
with the digest that this host computed, or was told by who may.

Tasks: of the event loop; opening, verifying and closing go to threads.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import trio

from chunkstore import Blob, Buffer, CacheUnusable, Chunk, Corrupt, Digest
from chunkstore.blobcache import BlobCache
from chunkstore.cachefile import CacheFile
from chunkstore.held import Held
from chunkstore.keeper import Keeper
from chunkstore.shelf import Shelf
from chunkstore.wanted import key_of

from .task import Digests, Version

_MAGIC = b"naiadfil"
_HEAD = struct.Struct("<8sI")
_ENTRY = struct.Struct("<32sI4x")
_ENTRIES_AT = 4096
_LOADED = 1 << 16
"""Entries read at once."""

_GROWTH = 64
"""Pieces that there is place for at first where nobody knows how many there will be."""


class Label(msgspec.Struct, frozen=True):
    """What a file in the cache is, for whoever finds it there."""

    task: bytes
    name: str
    """The url, without what may be secret."""
    length: int | None
    validator: str


class FileStore:
    """The pieces of *version* that this host has."""

    def __init__(self, cache: BlobCache, version: Version, name: str) -> None:
        """Open nothing yet: ``open`` does."""
        self.version = version
        self.digests = Digests()
        self.ready: set[int] = set()
        """Pieces that were here when last looked at, or put since."""
        self.name = name
        self._cache = cache
        self._keeper = Keeper(cache, Held(0), version.owner)
        self._path = cache.place(version.blob_id).data.with_suffix(".digests")
        self._fd = -1
        self.shelf: Shelf | None = None

    async def open(self, *, verify: bool = False) -> None:
        """Open the files and look which pieces are here; raises CacheUnusable, and holds none then.

        With *verify* each is hashed: disks forget, and what is copied out is looked at by nobody.
        """
        try:
            await trio.to_thread.run_sync(self._open, verify)
        except OSError as exc:
            await self.close()
            raise CacheUnusable(f"{self._path}: {exc.strerror}") from exc

    async def close(self) -> None:
        """Give the files back; may wait for the disk."""
        shelf, self.shelf = self.shelf, None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if shelf is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(shelf.close)

    def chunk(self, piece: int) -> Chunk | None:
        """Return *piece* as a chunk; None while its digest is not known."""
        digest = self.digests.get(piece)
        return None if digest is None else self.version.chunk(piece, digest)

    def note(self, first: int, digests: list[bytes]) -> list[int]:
        """Keep digests that were told or computed; return the pieces that they are news of."""
        fresh = self.digests.add(first, digests)
        for piece in fresh:
            raw = digests[piece - first]
            os.pwrite(self._fd, _entry(raw), _ENTRIES_AT + piece * _ENTRY.size)
        return fresh

    async def put(self, piece: int, data: Buffer) -> Chunk:
        """Keep *data* as *piece*, learning its digest if nobody has told it.

        Raises Corrupt when it is not what is known, CacheUnusable when there is no room.
        """
        assert self.shelf is not None
        if len(data) != self.version.size(piece):
            raise Corrupt(f"piece {piece}: {len(data)} bytes, not {self.version.size(piece)}")
        if self.digests.raw(piece) is None:
            self.note(piece, [Digest.of(data).raw])
        chunk = self.chunk(piece)
        assert chunk is not None
        self._make_place(chunk)
        blob = self.version.blob()
        if await self._keeper.keep(self.shelf, key_of(blob, chunk), chunk, data) is not None:
            reason = self._keeper.fault.text or "cache: no room"
            raise CacheUnusable(f"{self._cache.root}: no room for {self.name}: {reason}")
        self.ready.add(piece)
        return chunk

    def ended(self, length: int) -> None:
        """Note how long a file is that nobody could tell the length of before its end."""
        self.version = replace(self.version, length=length)
        self._describe()

    def _make_place(self, chunk: Chunk) -> None:
        """Let the cache file grow with a file whose length is not known yet."""
        assert self.shelf is not None
        if self.version.in_order and not self.shelf.shared.admits(chunk):
            count = max(_GROWTH, 2 * chunk.index)
            size = count * self.version.piece_size
            self.shelf.shared.grow(Blob(self.version.blob_id, size, size, count))

    def has(self, piece: int) -> bool:
        """Say whether *piece* is here now."""
        chunk = self.chunk(piece)
        here = chunk is not None and self.shelf is not None and self.shelf.find(chunk) is not None
        if not here:
            self.ready.discard(piece)
        return here

    def missing(self) -> list[int]:
        """Return the pieces that are not here, in order; the length is known."""
        return [piece for piece in range(self.version.count) if not self.has(piece)]

    def file(self) -> CacheFile | None:
        """Return the one file that all pieces lie in; None where some are missing or lie apart."""
        assert self.shelf is not None
        files = {self.shelf.find(chunk) for chunk in self._chunks()} or {self.shelf.shared}
        return files.pop() if len(files) == 1 else None

    def read(self, piece: int) -> Buffer:
        """Return the bytes of *piece*; raises CacheUnusable. Waits for the disk."""
        chunk = self.chunk(piece)
        file = self.shelf.find(chunk) if self.shelf and chunk else None
        if chunk is not None and file is not None:
            into = bytearray(chunk.size)
            with file.lease.shared():
                if file.read(chunk.offset, memoryview(into)) and chunk.digest.matches(into):
                    return into
        raise CacheUnusable(f"{self.name}: piece {piece} cannot be read back")

    def copy(self, piece: int, into: memoryview) -> bool:
        """Copy the bytes of *piece* as the disk gives them; False where it is not here."""
        chunk = self.chunk(piece)
        file = self.shelf.find(chunk) if self.shelf and chunk else None
        if chunk is None or file is None or chunk.size != len(into):
            return False
        with file.lease.shared():
            return file.read(chunk.offset, into)

    def forget(self) -> None:
        """Treat all pieces and all digests as never seen: they turned out to be wrong."""
        assert self.shelf is not None
        for chunk in list(self._chunks()):
            self.shelf.forget(chunk)
        self.digests = Digests()
        self.ready.clear()
        os.ftruncate(self._fd, _ENTRIES_AT)

    def _chunks(self) -> Iterator[Chunk]:
        for piece, _ in self.digests:
            chunk = self.chunk(piece)
            if chunk is not None:
                yield chunk

    def _open(self, verify: bool) -> None:
        self.shelf = Shelf(self._cache, self.version.blob(), self.version.owner)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        self._describe()
        self._load()
        for chunk in self._chunks():
            if self.shelf.doubts(chunk):
                self.shelf.verify(chunk)
            file = self.shelf.find(chunk)
            if file is not None and (not verify or file.check(chunk.index)):
                self.ready.add(chunk.index)

    def _describe(self) -> None:
        """Say at the head of the digests what they are of."""
        version = self.version
        label = Label(version.task, self.name[:500], version.length, version.validator)
        document = msgspec.json.encode(label)
        os.pwrite(self._fd, _HEAD.pack(_MAGIC, len(document)) + document, 0)

    def _load(self) -> None:
        at, count = 0, self.version.count
        while at < count:
            data = os.pread(self._fd, _LOADED * _ENTRY.size, _ENTRIES_AT + at * _ENTRY.size)
            whole = len(data) // _ENTRY.size * _ENTRY.size
            entries = list(_ENTRY.iter_unpack(data[:whole]))
            if not entries:
                return
            for piece, (raw, checksum) in enumerate(entries[: count - at], at):
                if checksum == zlib.crc32(raw):
                    self.digests.add(piece, [raw])
            at += len(entries)


def _entry(raw: bytes) -> bytes:
    return _ENTRY.pack(raw, zlib.crc32(raw))


def label(path: Path) -> Label | None:
    """Return what the digests at *path* are of; None where that cannot be read."""
    with suppress(OSError, struct.error, msgspec.MsgspecError), path.open("rb") as file:
        magic, size = _HEAD.unpack(file.read(_HEAD.size))
        if magic == _MAGIC and size <= _ENTRIES_AT:
            return msgspec.json.decode(file.read(size), type=Label)
    return None
