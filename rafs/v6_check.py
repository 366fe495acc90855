"""V6Check: what a RAFS v6 bootstrap must keep to beyond being readable.

The kernel's EROFS reads the same bytes by its own rules. So what the two could see differently is
wrong here, too: unknown flags, a chunk size that the inode gives larger while its chunks are not
in one run, a device smaller than its blob.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator, Mapping
from typing import Final

from chunkstore import CHUNKS_PER_BLOB, MAX_CHUNK, Codec

from . import erofs
from . import v6_tables as tables
from .chunkmap import Place, Places, unpack_chunk
from .erofs import BLOCK, INDEX, SLOT
from .erofs_view import Head
from .errors import BadImage
from .finding import Claims, Report
from .v6 import V6
from .v6_tables import BlobEntry

_PAUSE: Final = 1024
"""Chunks checked between two pauses."""
_SURELY_STORED: Final = 1 << 39
"""Bytes of a stored blob before which no place needs a closer look."""
_USUAL: Final = (0, tables.COMPRESSED)
"""Flags of chunks."""
_RUN_BITS: Final = 0x1F
"""Of an inode's chunk format: how often a block is doubled to what the kernel calls a chunk."""
_DOTS: Final = (b".", b"..")


class V6Check:
    """See ``check.FormatCheck``."""

    def __init__(self, image: V6, report: Report) -> None:
        self._image = image
        self._buffer = image.buffer
        self._report = report
        self._claims = Claims(len(image.buffer), SLOT)
        self._facts = tables.unpack_super(image.buffer)
        self._entries = image.facts.entries
        self._step = image.facts.chunk_size
        self._step_bits = (self._step // BLOCK).bit_length() - 1
        self._limits = [_limits(entry) for entry in self._entries]
        """Of each blob: decoded bytes, chunks, whether it has a codec."""
        self.limit = max(0, len(image.buffer) - self._facts.meta) // SLOT

    @property
    def slots(self) -> bytearray:
        """A byte for each slot of the file, 1 where something was found: to be claimed in bulk."""
        return self._claims.taken

    def place(self, nid: int) -> int:
        """Return the byte where an inode starts."""
        return self._facts.meta + nid * SLOT

    def tables(self) -> Iterator[None]:
        """Check superblocks, devices, blobs and chunks."""
        self._superblock()
        yield
        self._devices()
        yield
        yield from self._chunks()

    def _superblock(self) -> None:
        core = erofs.SUPER.unpack_from(self._buffer, erofs.SUPER_OFFSET)
        size = len(self._buffer)
        expected = {
            "checksum": (core[1], 0),
            "slots": (core[4], 0),
            "device slot": (core[17], erofs.DEVICE_SLOT),
            "devices": (core[16], len(self._entries)),
            "mode": (core[15], 0),
        }
        for name, (found, wanted) in expected.items():
            if found != wanted:
                self._found("superblock", erofs.SUPER_OFFSET, f"{name}: {found}, not {wanted}")
        if size % BLOCK:
            self._found(
                "superblock", erofs.SUPER_OFFSET, f"a file of {size} bytes, no whole blocks"
            )
        facts = self._facts
        devices = erofs.DEVICE_OFFSET + core[16] * erofs.DEVICE.size
        self._claim("superblock", 0, devices)
        for name, (start, count), unit in (
            ("blob table", facts.blobs, tables.BLOB.size),
            ("chunk table", facts.chunks, tables.CHUNK.size),
            ("prefetch table", facts.prefetch, tables.PREFETCH.size),
        ):
            if count:
                self._claim(name, start, start + count * unit)

    def _devices(self) -> None:
        ids = set()
        for number, entry in enumerate(self._entries):
            place = erofs.DEVICE_OFFSET + number * erofs.DEVICE.size
            name, blocks = erofs.DEVICE.unpack_from(self._buffer, place)[:2]
            blob = entry.blob
            listed = bytes(
                self._buffer[self._facts.blobs[0] + number * tables.BLOB.size :][: len(name)]
            )
            if name != listed:
                self._found(f"device {number}", place, f"is not called {blob.id} as the blob is")
            if blocks * BLOCK != erofs.round_block(blob.size):
                self._found(
                    f"device {number}", place, f"{blocks} blocks, {blob.size} bytes of blob"
                )
            if entry.chunk_size > self._step or name in ids:
                self._found(f"blob {number}", place, "listed twice, or its chunks are too large")
            ids.add(name)

    def _chunks(self) -> Iterator[None]:
        start, count = self._facts.chunks
        step = tables.CHUNK.size
        places = self._untold()
        last, ordered = -1, True
        tangled = set()
        stops = [0] * len(self._entries)
        records = tables.CHUNK_FACTS.iter_unpack(self._buffer[start : start + count * step])
        for row, (blob, flags, stored_size, size, stored_offset, offset, index) in enumerate(
            records
        ):
            # As nearly all are, and surely right; quicker than to look.
            if blob < len(stops):
                decoded, chunks, coded = self._limits[blob]
                plain = (
                    0 < size <= MAX_CHUNK
                    and offset + size <= decoded
                    and not offset % BLOCK
                    and index < chunks
                    and 0 < stored_size <= 2 * MAX_CHUNK
                    and stored_offset < _SURELY_STORED
                    and flags in _USUAL
                    and (stored_size == size or (flags and coded))
                )
                if offset < stops[blob]:
                    tangled.add(blob)
                stops[blob] = offset + size
            else:
                plain = False
            if not plain:
                self._chunk(start + row * step, places)
            key = blob << 32 | index
            ordered = ordered and key > last
            last = key
            if not row % _PAUSE:
                yield
        if not ordered:
            yield from self._doubles()
        for blob in sorted(tangled):
            yield from self._overlaps(blob)

    def _chunk(self, place: int, places: Mapping[int, Places]) -> None:
        """Check one record thoroughly."""
        try:
            _, chunk = unpack_chunk(self._buffer, place, self._entries, places)
            if chunk.offset % BLOCK:
                self._found("chunk", place, f"starts at byte {chunk.offset}, not on a block")
        except BadImage as exc:
            self._report.caught(exc)

    def _untold(self) -> Mapping[int, Places]:
        """Return something to say for blobs that alone know where their chunks are stored."""
        somewhere = Place(0, 1, Codec.ZSTD)
        return {
            number: lambda _: somewhere
            for number, entry in enumerate(self._entries)
            if entry.is_batched
        }

    def _doubles(self) -> Iterator[None]:
        """Check that no chunk is listed twice, where the table's order does not show it."""
        keys = sorted(map(self._image.table.key, range(self._facts.chunks[1])))
        for key, following in itertools.pairwise(keys):
            if key == following:
                blob, index = key >> 32, key & 0xFFFF_FFFF
                self._found("chunk table", self._facts.chunks[0], f"{blob}:{index} comes twice")
                yield

    def _overlaps(self, blob: int) -> Iterator[None]:
        """Check that a blob's chunks lie behind one another."""
        stop = 0
        for number, row in enumerate(self._image.table.rows(blob)):
            place = self._facts.chunks[0] + row * tables.CHUNK.size
            _, size, offset = tables.CHUNK_PLACE.unpack_from(
                self._buffer, place + tables.KEY_OFFSET
            )
            if offset < stop:
                self._found("chunk", place, f"starts at byte {offset} in another, up to {stop}")
            stop = max(stop, offset + size)
            if not number % _PAUSE:
                yield

    def inode(self, nid: int) -> tuple[int, int]:
        """Check an inode, its xattrs and chunks, and that nothing else is where its parts are.

        Returns its mode and links.
        """
        head = self._image.erofs.head(nid)
        kind = head.mode & 0xF000
        if kind == stat.S_IFREG:
            stop = self._indexes(head)
        elif kind == stat.S_IFDIR or kind == stat.S_IFLNK:
            stop = self._flat(head)
        elif head.layout != erofs.PLAIN:
            raise erofs.bad(f"inode {nid}", head.offset, f"layout {head.layout} of a device")
        else:
            stop = head.data
        if not self._claims.take(head.offset, stop):
            raise erofs.bad(f"inode {nid}", head.offset, "in one place with something else")
        if head.units:
            self._xattrs(head)
        if kind == stat.S_IFLNK:
            self._image.target(nid)
        return head.mode, head.nlink

    def names(self, nid: int, parent: int) -> Iterator[tuple[bytes, int, int]]:
        """Check a directory's names and yield each but the dots with nid and kind's number."""
        dots = {b".": nid, b"..": parent}
        last = b""
        for offset, names, nids, kinds in self._image.erofs.blocks(nid):
            for name, child, kind in zip(names, nids, kinds, strict=True):
                if name <= last or len(name) > erofs.MAX_NAME:
                    self._found("directory block", offset, f"{name!r} behind {last!r}")
                last = name
                if name not in _DOTS:
                    yield name, child, kind
                elif dots.pop(name, None) != child:
                    self._found("directory block", offset, f"{name!r} is inode {child}")
        if dots:
            raise erofs.bad(f"inode {nid}", self.place(nid), f"no {b' '.join(dots)!r} in it")

    def _flat(self, head: Head) -> int:
        """Claim the blocks of a directory or symlink; return where what is behind it ends."""
        if not head.size:
            raise self._bad(head, "nothing in it")
        blocks = -(-head.size // BLOCK)
        tail = 0
        if head.layout == erofs.INLINE:
            blocks -= 1
            tail = head.size - blocks * BLOCK
            if head.data % BLOCK + tail > BLOCK:
                raise self._bad(head, f"a tail of {tail} bytes that crosses a block")
        elif head.layout != erofs.PLAIN:
            raise self._bad(head, "names or a target in chunks")
        start = head.union * BLOCK
        if blocks and not self._claims.take(start, start + blocks * BLOCK):
            raise self._bad(head, f"{blocks} blocks at byte {start}, taken or outside")
        return head.data + tail

    def _indexes(self, head: Head) -> int:
        """Check a file's chunk indexes; return where they end."""
        unknown = head.union & ~(_RUN_BITS | erofs.CHUNK_INDEXES)
        if head.layout == erofs.CHUNKED and unknown:
            raise self._bad(head, f"chunk format {head.union:#x}")
        data = head.data
        if not head.size:
            return data
        start = -(-data // INDEX.size) * INDEX.size
        stop = start + -(-head.size // self._step) * INDEX.size
        if stop > len(self._buffer):
            raise self._bad(head, f"a file of {head.size} bytes, for which there is no room")
        bits = (head.union & _RUN_BITS) - self._step_bits
        if head.layout != erofs.CHUNKED or not head.union & erofs.CHUNK_INDEXES:
            raise self._bad(head, f"layout {head.layout}, chunk format {head.union:#x}")
        if bits < 0:
            raise self._bad(head, f"chunk format {head.union:#x}, smaller than a chunk")
        if head.size <= self._step:
            self._index(head, INDEX.unpack_from(self._buffer, start), head.size)
            return stop
        left, expected = head.size, None
        for number, index in enumerate(INDEX.iter_unpack(self._buffer[start:stop])):
            if number & (1 << bits) - 1 and _place(index) != expected:
                raise self._bad(head, f"chunk {number} does not go on where the last one ends")
            expected = self._index(head, index, min(left, self._step))
            left -= self._step
        return stop

    def _index(self, head: Head, index: tuple[int, int, int], size: int) -> tuple[int, int]:
        """Check that *size* bytes of a file are where *index* says; return what may follow."""
        low, high, block = index
        if block == erofs.NO_BLOCK:
            return _place(index)
        blob = (high & 0xFF) - 1
        if not 0 <= blob < len(self._entries):
            raise self._bad(head, f"a chunk on device {blob + 1} of {len(self._entries)}")
        table, position = self._image.table, block * BLOCK
        number, stop = high >> 8 << 16 | low, position + size
        if table.holds(blob, number, position, stop):
            return blob + 1, block + self._step // BLOCK
        row = table.find(blob, number)
        while position < stop:
            place = table.place(row) if row is not None else None
            if place is None or place[0] != blob or not place[1] <= position < place[2]:
                row = table.covering(blob, position)
                if row is None:
                    raise self._bad(head, f"no chunk at byte {position} of blob {blob}")
                place = table.place(row)
            position, row = place[2], None
        return blob + 1, block + self._step // BLOCK

    def _xattrs(self, head: Head) -> None:
        """Check that the entries of a xattr body fill it to its last byte."""
        _, shared = erofs.XATTR_HEADER.unpack_from(self._buffer, head.body)
        start = head.body + erofs.XATTR_HEADER.size
        inline = start + shared * erofs.XATTR_SHARED.size
        if inline > head.data or (shared and not self._facts.shared_xattrs):
            raise self._bad(head, f"{shared} shared xattrs")
        for (number,) in erofs.XATTR_SHARED.iter_unpack(self._buffer[start:inline]):
            place = self._facts.shared_xattrs + number * erofs.XATTR_SHARED.size
            self._xattr(place, len(self._buffer))
        while inline < head.data:
            inline = self._xattr(inline, head.data)

    def _xattr(self, start: int, limit: int) -> int:
        """Check a xattr entry; return where the next one starts."""
        stop: int = start + erofs.XATTR_ENTRY.size
        if stop <= limit:
            size, number, value = erofs.XATTR_ENTRY.unpack_from(self._buffer, start)
            prefix = erofs.prefix(number)
            stop += -(-(size + value) // 4) * 4
            if prefix is not None and len(prefix) + size <= erofs.MAX_NAME and stop <= limit:
                return stop
        raise erofs.bad("xattr", start, f"ends at byte {stop} of {limit}, or has no name")

    def _claim(self, name: str, start: int, stop: int) -> None:
        if not self._claims.take(start, stop):
            self._found(name, start, f"up to byte {stop}, taken or outside")

    def _found(self, structure: str, offset: int, what: str) -> None:
        self._report.add(structure, offset, what)

    def _bad(self, head: Head, what: str) -> BadImage:
        return erofs.bad(f"inode {head.nid}", head.offset, what)


def _limits(entry: BlobEntry) -> tuple[int, int, bool]:
    """Return what a plain record must keep to; nothing does where only the blob itself knows."""
    if entry.is_batched:
        return 0, 0, False
    decoded = erofs.round_block(entry.blob.size) or _SURELY_STORED
    return decoded, entry.blob.chunk_count or CHUNKS_PER_BLOB, entry.codec is not Codec.NONE


def _place(index: tuple[int, int, int]) -> tuple[int, int]:
    """Return device and block of a chunk index; 0 and the hole's block for a hole."""
    _, high, block = index
    return (0 if block == erofs.NO_BLOCK else high & 0xFF), block
