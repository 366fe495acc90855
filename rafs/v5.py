"""V5: a RAFS v5 bootstrap, read in place. Read only; naiad builds v6.

An inode is found by its row in the inode table. The rows of a directory's children stand side by
side, sorted by name, and behind those of the directory itself, so names are found by bisection and
no path can run in a circle. Hard links have a row for each name, and all say the same inode
number: the nid, which is the row of the first.
"""

from __future__ import annotations

import stat
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from . import v5_tables as tables
from . import v6_tables
from .chunkmap import ChunkMap, ChunkTable, Places, unpack_chunk
from .erofs import MAX_NAME, MAX_SIZE, MAX_TARGET, device_number
from .errors import BadImage, Unsupported, WrongKind
from .inode import Kind
from .metadata import Attributes, Facts, Folder, Piece
from .v5_tables import fault

_ROOT = 1
_CHUNK = v6_tables.CHUNK.size
_NSEC = 10**9
_TYPES = frozenset(
    stat.S_IFMT(kind) >> 12
    for kind in (
        stat.S_IFREG,
        stat.S_IFDIR,
        stat.S_IFLNK,
        stat.S_IFCHR,
        stat.S_IFBLK,
        stat.S_IFIFO,
        stat.S_IFSOCK,
    )
)
_DOTS = (b".", b"..")
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


class _Record(NamedTuple):
    """An inode as it stands on disk, checked."""

    row: int
    offset: int
    nid: int
    uid: int
    gid: int
    mode: int
    size: int
    flags: int
    nlink: int
    first: int
    """A directory's first child's row."""
    children: int
    """Children of a directory, chunks of a file."""
    name_size: int
    target_size: int
    rdev: int
    mtime_nsec: int
    mtime: int

    @property
    def name(self) -> int:
        """Byte where its name starts."""
        return self.offset + tables.INODE.size

    @property
    def target(self) -> int:
        """Byte where its target starts."""
        return self.name + _align(self.name_size)

    @property
    def tail(self) -> int:
        """Byte behind name and target: xattrs, chunks."""
        names = _align(self.name_size) + _align(self.target_size)
        return self.offset + tables.INODE.size + names


class V5:
    """A bootstrap of version 5; raises BadImage, Unsupported when it cannot be one."""

    def __init__(self, buffer: memoryview, within: str = "") -> None:
        """Read the superblock and the small tables; *within* is the blob that it was found in."""
        self.buffer = buffer
        self._size = len(buffer)
        self._super = tables.unpack_super(buffer)
        entries = tuple(
            v6_tables.named(entry, within) for entry in tables.unpack_blobs(buffer, self._super)
        )
        self._check_root()
        self.facts = Facts(
            version=5,
            root=_ROOT,
            inode_count=self._super.inode_count,
            chunk_size=self._super.chunk_size,
            codec=self._super.codec,
            algorithm=self._super.algorithm,
            entries=entries,
            prefetch=self._prefetch(),
        )
        self._table: ChunkTable | None = None
        self._last: _Record | None = None
        """The record read last: what is asked of an inode is asked several times in a row."""

    def attributes(self, nid: int) -> Attributes:
        """Return mode, nlink, uid, gid, rdev, size, mtime, mtime_nsec, ino."""
        found = self._inode(nid)
        kind = stat.S_IFMT(found.mode)
        size = found.target_size if kind == stat.S_IFLNK else found.size
        rdev = device_number(found.rdev) if kind in _DEVICES else 0
        return (
            *(found.mode, found.nlink, found.uid, found.gid, rdev),
            *(size, found.mtime, found.mtime_nsec, nid),
        )

    def lookup(self, nid: int, name: bytes) -> int | None:
        """Return the nid of *name* in a directory; ``.`` and ``..`` are names, too."""
        directory = self._directory(nid)
        if name == b".":
            return nid
        if name == b"..":
            return self._parent(directory)
        rows = self.rows(nid)
        found = bisect_left(rows, name, key=self._name_at)
        if found == len(rows) or self._name_at(rows[found]) != name:
            return None
        return self._child(rows[found]).nid

    def scan(self, nid: int, cookie: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield (name, nid, cookie) after *cookie*."""
        for name, child, place, _ in self.listing(nid, cookie):
            yield name, child, place

    def listing(self, nid: int, cookie: int) -> Iterator[tuple[bytes, int, int, int]]:
        """Yield (name, nid, cookie, kind's number) after *cookie*; a cookie counts the entries."""
        directory = self._directory(nid)
        for place in range(max(0, cookie), directory.children):
            child = self._child(directory.first + place)
            kind = Kind.of(child.mode).value
            yield self._child_name(child), child.nid, place + 1, kind

    def target(self, nid: int) -> bytes:
        """Return a symlink's target."""
        found = self._inode(nid)
        if not stat.S_ISLNK(found.mode):
            raise WrongKind(f"inode {nid} is no symlink")
        target = bytes(self.buffer[found.target : found.target + found.target_size])
        if not 0 < len(target) <= MAX_TARGET or b"\0" in target:
            raise fault(found.row, found.target, f"a target of {len(target)} bytes that is no path")
        return target

    def has_xattrs(self, nid: int) -> bool:
        """Say whether there are any."""
        return bool(self._inode(nid).flags & tables.XATTR_FLAG)

    def xattrs(self, nid: int) -> dict[bytes, bytes]:
        """Return all, by full name."""
        found = self._inode(nid)
        start, stop = self._xattr_range(found)
        pairs: dict[bytes, bytes] = {}
        while start < stop:
            pair = start + tables.PAIR.size
            size = tables.PAIR.unpack_from(self.buffer, start)[0] if pair <= stop else self._size
            if pair + size > stop:
                raise fault(found.row, start, f"an xattr that ends behind byte {stop}")
            name, nul, value = bytes(self.buffer[pair : pair + size]).partition(b"\0")
            if not nul or not 0 < len(name) <= MAX_NAME or name in pairs:
                raise fault(found.row, start, f"an xattr named {name[:MAX_NAME]!r}")
            pairs[name] = value
            start = pair + size
        return pairs

    def file(self, nid: int) -> _File:
        """Return where a regular file's bytes are."""
        found = self._inode(nid)
        if not stat.S_ISREG(found.mode):
            raise WrongKind(f"inode {nid} is no regular file")
        return _File(self, found, self._records_of(found))

    def folders(self) -> Iterator[Sequence[Folder]]:
        """Tell of none: chunks are not found by their indices without reading every inode."""
        return iter(())

    def chunks(self, blob_index: int) -> ChunkMap:
        """Return the chunks that this image knows of a blob; the first call reads every inode."""
        if self._table is None:
            self._table = self._gather()
        return ChunkMap(self._table, blob_index)

    def attach(self, blob_index: int, places: Places) -> None:
        """Refuse: a v5 bootstrap itself says where every chunk is stored."""
        raise BadImage(f"blob {blob_index} of a v5 image has no chunk list of its own")

    def rows(self, nid: int) -> range:
        """Return the rows of a directory's children."""
        directory = self._directory(nid)
        return range(directory.first, directory.first + directory.children)

    def extent(self, nid: int) -> tuple[int, int]:
        """Return where an inode with all that stands behind it starts and stops."""
        found = self._inode(nid)
        stop = self._records_of(found)
        if stat.S_ISREG(found.mode):
            stop += found.children * _CHUNK
        return found.offset, stop

    def release(self) -> None:
        """Let go of the buffer."""
        self._table = None
        self.buffer.release()

    def _check_root(self) -> None:
        """Refuse what has no root where v5 has it: before 2.0 inodes were laid out otherwise."""
        offset = self._offset(_ROOT)
        found = _Record(_ROOT, offset, *tables.INODE.unpack_from(self.buffer, offset))
        if found.nid != _ROOT or not stat.S_ISDIR(found.mode) or self._name(found) != b"/":
            raise Unsupported(f"inode 1 at byte {offset}: no root directory, an old variant of v5")

    def _prefetch(self) -> tuple[int, ...]:
        table = self._super.prefetch
        nids = v6_tables.unpack_prefetch(self.buffer, table.start, table.count)
        return tuple(nid for nid in nids if nid)

    def _offset(self, row: int) -> int:
        table = self._super.inodes
        if not 0 < row <= table.count:
            raise fault(row, table.start, f"outside the inode table of {table.count}")
        place = table.start + (row - 1) * tables.ROW.size
        offset = int(tables.ROW.unpack_from(self.buffer, place)[0]) * tables.ALIGNMENT
        if not tables.SUPER_SIZE < offset <= self._size - tables.INODE.size:
            raise fault(row, place, f"at byte {offset} of {self._size}")
        return offset

    def _record(self, row: int) -> _Record:
        """Return the inode in *row*; name, target and mode can be trusted to be there."""
        last = self._last
        if last is not None and last.row == row:
            return last
        offset = self._offset(row)
        found = _Record(row, offset, *tables.INODE.unpack_from(self.buffer, offset))
        if found.mode >> 12 not in _TYPES or found.mtime_nsec >= _NSEC or found.size > MAX_SIZE:
            raise fault(
                row, offset, f"mode {found.mode:#o}, size {found.size}, {found.mtime_nsec} ns"
            )
        if found.tail > self._size:
            raise fault(row, offset, f"goes on behind the end of the file, byte {self._size}")
        self._last = found
        return found

    def _inode(self, nid: int) -> _Record:
        found = self._record(nid)
        if found.nid != nid:
            raise fault(nid, found.offset, f"calls itself inode {found.nid}")
        return found

    def _directory(self, nid: int) -> _Record:
        found = self._inode(nid)
        if not stat.S_ISDIR(found.mode):
            raise WrongKind(f"inode {nid} is no directory")
        # Children behind their parent: no path runs in a circle.
        table = self._super.inodes
        if found.children and not (
            nid < found.first and found.first + found.children - 1 <= table.count
        ):
            raise fault(nid, found.offset, f"{found.children} children from inode {found.first} on")
        return found

    def _child(self, row: int) -> _Record:
        found = self._record(row)
        if not 0 < found.nid <= row or (found.nid != row and not stat.S_ISREG(found.mode)):
            raise fault(row, found.offset, f"calls itself inode {found.nid}")
        return found

    def _parent(self, directory: _Record) -> int:
        (parent,) = tables.PARENT.unpack_from(self.buffer, directory.offset + tables.PARENT_OFFSET)
        if directory.nid == _ROOT:
            return _ROOT
        if not 0 < parent < directory.nid:
            raise fault(directory.row, directory.offset, f"its parent is inode {parent}")
        return int(parent)

    def _name(self, found: _Record) -> bytes:
        return bytes(self.buffer[found.name : found.name + found.name_size])

    def _name_at(self, row: int) -> bytes:
        return self._child_name(self._record(row))

    def _child_name(self, found: _Record) -> bytes:
        name = self._name(found)
        if not 0 < len(name) <= MAX_NAME or b"/" in name or b"\0" in name or name in _DOTS:
            raise fault(found.row, found.name, f"a name that is none: {name[:MAX_NAME]!r}")
        return name

    def _xattr_range(self, found: _Record) -> tuple[int, int]:
        """Return start and stop of the xattr pairs; both are ``tail`` where there are none."""
        if not found.flags & tables.XATTR_FLAG:
            return found.tail, found.tail
        start = found.tail + tables.XATTRS.size
        if start <= self._size:
            (size,) = tables.XATTRS.unpack_from(self.buffer, found.tail)
            if size <= min(tables.MAX_XATTRS, self._size - start):
                return start, start + size
        raise fault(found.row, found.tail, "xattrs that end behind the file or are too many")

    def _records_of(self, found: _Record) -> int:
        """Return where the chunk records start; those of a regular file are all in the file."""
        start = _align(self._xattr_range(found)[1])
        count = found.children if stat.S_ISREG(found.mode) else 0
        if start + count * _CHUNK > self._size:
            raise fault(found.row, start, f"{count} chunks in a file of {self._size} bytes")
        return start

    def _gather(self) -> ChunkTable:
        """Return a table of all chunks, sorted by blob and index, each once."""
        shift = self._size.bit_length()
        keys = sorted({key << shift | offset for key, offset in self._chunk_keys()})
        records, last = bytearray(), -1
        for key in keys:
            offset = key & ((1 << shift) - 1)
            if key >> shift != last:
                records += self.buffer[offset : offset + _CHUNK]
            last = key >> shift
        view = memoryview(records)
        return ChunkTable(view, 0, len(records) // _CHUNK, self.facts.entries)

    def _chunk_keys(self) -> Iterator[tuple[int, int]]:
        room = self._size
        for row in range(1, self._super.inodes.count + 1):
            found = self._record(row)
            if found.nid != row or not stat.S_ISREG(found.mode):
                continue
            start = self._records_of(found)
            room -= found.children * _CHUNK
            if room < 0:
                raise fault(row, start, "chunks that other inodes have, too")
            for offset in range(start, start + found.children * _CHUNK, _CHUNK):
                if not _chunk_flags(self.buffer, offset) & v6_tables.HOLE:
                    blob, index = v6_tables.CHUNK_KEY.unpack_from(
                        self.buffer, offset + v6_tables.KEY_OFFSET
                    )
                    yield blob << 32 | index, offset


class _File:
    """Where the bytes of one regular file are: an array of chunk records in file order."""

    def __init__(self, image: V5, found: _Record, start: int) -> None:
        self.size = found.size
        self._buffer = image.buffer
        self._found = found
        self._start = start
        self._entries = image.facts.entries

    def at(self, position: int) -> Piece:
        """Return the piece that holds byte *position*."""
        count = self._found.children
        number = bisect_right(range(count), position, key=self._place) - 1
        start, stop = 0, self._place(number + 1) if number + 1 < count else self.size
        if number >= 0:
            start = self._place(number)
            piece = self._piece(number, start)
            if position < piece.stop <= stop:
                return piece
            start = piece.stop
        if not start <= position < stop or not self._found.flags & tables.HOLES_FLAG:
            raise fault(self._found.row, self._start, f"no chunk, or two, at its byte {position}")
        return Piece(start, min(stop, self.size), None, None, 0)

    def _piece(self, number: int, start: int) -> Piece:
        offset = self._start + number * _CHUNK
        if _chunk_flags(self._buffer, offset) & v6_tables.HOLE:
            return Piece(start, start, None, None, 0)
        blob, chunk = unpack_chunk(self._buffer, offset, self._entries)
        return Piece(start, min(start + chunk.size, self.size), blob, chunk, 0)

    def _place(self, number: int) -> int:
        """Return the byte of the file where a chunk starts."""
        (place,) = tables.CHUNK_FILE_OFFSET.unpack_from(
            self._buffer, self._start + number * _CHUNK + v6_tables.KEY_OFFSET
        )
        return int(place)


def _chunk_flags(buffer: memoryview, offset: int) -> int:
    return int(tables.CHUNK_FLAGS.unpack_from(buffer, offset + v6_tables.KEY_OFFSET)[0])


def _align(size: int) -> int:
    return (size + tables.ALIGNMENT - 1) & -tables.ALIGNMENT
