"""Erofs: inodes, directories, symlinks and xattrs of an EROFS image, read in place.

Nothing is decoded ahead and nothing is kept: each answer reads the few bytes that it needs, and
checks them. Offsets in errors count from the start of the file.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from . import erofs
from .erofs import BLOCK, DIRENT, EXTENDED, SLOT, bad
from .errors import WrongKind
from .inode import Kind
from .metadata import Attributes

_COOKIE_BITS = 9
"""A cookie is a block's number and, in its low bits, an entry's number from 1 on; a block of 4 KiB
holds at most 315."""
_COOKIE_ENTRY = (1 << _COOKIE_BITS) - 1

_DOTS = frozenset((b".", b".."))
_KINDS = frozenset(kind.value for kind in Kind)
_TYPES = frozenset((1, 2, 4, 6, 8, 10, 12))
"""The file types of a mode, shifted down."""
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_NSEC = 10**9
_LAYOUTS = frozenset((erofs.PLAIN, erofs.INLINE, erofs.CHUNKED))
_EXTENDED_FORMATS = frozenset(1 | layout << 1 for layout in _LAYOUTS)


class Head(NamedTuple):
    """An inode as it stands on disk, checked."""

    nid: int
    offset: int
    body: int
    """Byte behind the inode, where its xattrs start."""
    units: int
    layout: int
    mode: int
    size: int
    union: int
    uid: int
    gid: int
    mtime: int
    mtime_nsec: int
    nlink: int

    @property
    def data(self) -> int:
        """Byte behind the xattrs."""
        return self.body + erofs.xattr_bytes(self.units)


class _Flat(NamedTuple):
    """Where the blocks of a directory or symlink are."""

    nid: int
    size: int
    start: int
    """Byte of block 0."""
    blocks: int
    tail: int
    """Byte of the last block."""


class _Block(NamedTuple):
    """The entries of one directory block."""

    names: Sequence[bytes]
    nids: Sequence[int]
    kinds: Sequence[int]


class Erofs:
    """The inodes of an image, which start at byte *base* of *buffer*."""

    def __init__(
        self, buffer: memoryview, base: int, shared_xattrs: int, built: tuple[int, int]
    ) -> None:
        self._buffer = buffer
        self._base = base
        self._shared_xattrs = shared_xattrs
        self._built = built
        self._size = len(buffer)
        self._nids = max(0, self._size - base) // SLOT

    def attributes(self, nid: int) -> Attributes:
        """Return mode, nlink, uid, gid, rdev, size, mtime, mtime_nsec, ino."""
        if 0 <= nid < self._nids - 1:
            form, _, mode, size, union, _, uid, gid, mtime, nsec, nlink = EXTENDED.unpack_from(
                self._buffer, self._base + nid * SLOT
            )
            if (
                form in _EXTENDED_FORMATS
                and mode >> 12 in _TYPES
                and size <= erofs.MAX_SIZE
                and nsec < _NSEC
            ):
                rdev = erofs.device_number(union) if mode & 0xF000 in _DEVICES else 0
                return mode, nlink, uid, gid, rdev, size, mtime, nsec, nid
        head = self.head(nid)
        rdev = erofs.device_number(head.union) if stat.S_IFMT(head.mode) in _DEVICES else 0
        return (
            *(head.mode, head.nlink, head.uid, head.gid, rdev),
            *(head.size, head.mtime, head.mtime_nsec, nid),
        )

    def head(self, nid: int) -> Head:
        """Return inode *nid*; raises BadImage."""
        offset = self._base + nid * SLOT
        if 0 <= nid < self._nids - 1:
            form, units, mode, size, union, _, uid, gid, mtime, nsec, nlink = EXTENDED.unpack_from(
                self._buffer, offset
            )
            if (
                form in _EXTENDED_FORMATS
                and mode >> 12 in _TYPES
                and size <= erofs.MAX_SIZE
                and nsec < _NSEC
            ):
                body = offset + EXTENDED.size
                return Head(
                    nid,
                    offset,
                    body,
                    units,
                    form >> 1,
                    mode,
                    size,
                    union,
                    uid,
                    gid,
                    mtime,
                    nsec,
                    nlink,
                )
        return self._head(nid, offset)

    def _head(self, nid: int, offset: int) -> Head:
        """Return any inode, or tell what is wrong with it."""
        what = f"inode {nid}"
        if not 0 <= nid < self._nids:
            raise bad(what, offset, f"outside the file of {self._size} bytes")
        (form,) = erofs.FORMAT.unpack_from(self._buffer, offset)
        layout = form >> 1
        if layout not in _LAYOUTS:
            raise bad(what, offset, f"format {form:#x}")
        if form & 1:
            if nid == self._nids - 1:
                raise bad(what, offset, "goes on behind the end of the file")
            _, units, mode, size, union, _, uid, gid, mtime, nsec, nlink = EXTENDED.unpack_from(
                self._buffer, offset
            )
            body = offset + EXTENDED.size
        else:
            _, units, mode, nlink, size, union, _, uid, gid = erofs.COMPACT.unpack_from(
                self._buffer, offset
            )
            mtime, nsec = self._built
            body = offset + erofs.COMPACT.size
        if mode >> 12 not in _TYPES or nsec >= _NSEC or size > erofs.MAX_SIZE:
            raise bad(what, offset, f"mode {mode:#o}, size {size}, {nsec} ns")
        return Head(
            nid, offset, body, units, layout, mode, size, union, uid, gid, mtime, nsec, nlink
        )

    def lookup(self, nid: int, name: bytes) -> int | None:
        """Return the nid that *name* has in directory *nid*; ``.`` and ``..`` count."""
        flat = self._directory(nid)
        low, high = 0, flat.blocks - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._first_name(flat, middle) <= name:
                low = middle
            else:
                high = middle - 1
        return self._find(flat, low, name)

    def scan(self, nid: int, cookie: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield name, nid and cookie of the entries behind *cookie*, without the dots."""
        flat = self._directory(nid)
        skip = cookie & _COOKIE_ENTRY
        for number in range(cookie >> _COOKIE_BITS, flat.blocks):
            names, nids, _ = self._entries(flat, number)
            base = (number << _COOKIE_BITS) + 1
            for index in range(skip, len(names)):
                name = names[index]
                if name not in _DOTS:
                    yield name, nids[index], base + index
            skip = 0

    def listing(self, nid: int, cookie: int) -> Iterator[tuple[bytes, int, int, int]]:
        """Yield what ``scan`` does, and the kind's number."""
        flat = self._directory(nid)
        skip = cookie & _COOKIE_ENTRY
        for number in range(cookie >> _COOKIE_BITS, flat.blocks):
            names, nids, kinds = self._entries(flat, number)
            base = (number << _COOKIE_BITS) + 1
            for index in range(skip, len(names)):
                if names[index] not in _DOTS:
                    yield names[index], nids[index], base + index, kinds[index]
            skip = 0

    def blocks(
        self, nid: int
    ) -> Iterator[tuple[int, Sequence[bytes], Sequence[int], Sequence[int]]]:
        """Yield byte, names, nids and kinds of each block of a directory, dots included."""
        flat = self._directory(nid)
        for number in range(flat.blocks):
            names, nids, kinds = self._entries(flat, number)
            yield self._block(flat, number)[1], names, nids, kinds

    def target(self, nid: int) -> bytes:
        """Return symlink *nid*'s target."""
        head = self.head(nid)
        if not stat.S_ISLNK(head.mode):
            raise WrongKind(f"inode {nid} is no symlink")
        if not 0 < head.size <= BLOCK:
            raise bad(f"symlink {nid}", head.offset, f"a target of {head.size} bytes")
        data, offset = self._block(self._flat(head), 0)
        if b"\0" in data:
            raise bad(f"symlink {nid}", offset, "a NUL in its target")
        return data

    def has_xattrs(self, nid: int) -> bool:
        """Say whether inode *nid* has xattrs."""
        return self.head(nid).units > 0

    def xattrs(self, nid: int) -> dict[bytes, bytes]:
        """Return all of inode *nid*'s xattrs."""
        head = self.head(nid)
        if not head.units:
            return {}
        stop = head.data
        if stop > self._size:
            raise bad(f"xattrs of inode {nid}", head.body, "go on behind the end of the file")
        _, shared = erofs.XATTR_HEADER.unpack_from(self._buffer, head.body)
        offset = head.body + erofs.XATTR_HEADER.size
        if offset + shared * erofs.XATTR_SHARED.size > stop:
            raise bad(f"xattrs of inode {nid}", head.body, f"{shared} shared ones")
        found = dict(self._shared(offset, shared))
        offset += shared * erofs.XATTR_SHARED.size
        # A rest of less than an entry, or zeros to the end, is padding.
        while offset + erofs.XATTR_ENTRY.size <= stop:
            name, value, size = self._xattr(offset, stop)
            if size == erofs.XATTR_ENTRY.size and not name:
                break
            found[name] = value
            offset += size
        return found

    def _shared(self, offset: int, count: int) -> Iterator[tuple[bytes, bytes]]:
        for index in range(count):
            (number,) = erofs.XATTR_SHARED.unpack_from(
                self._buffer, offset + index * erofs.XATTR_SHARED.size
            )
            place = self._shared_xattrs + number * erofs.XATTR_SHARED.size
            if not self._shared_xattrs:
                raise bad("shared xattr", offset, "the image has none")
            name, value, _ = self._xattr(place, self._size)
            yield name, value

    def _xattr(self, offset: int, stop: int) -> tuple[bytes, bytes, int]:
        """Return name, value and padded size of the xattr entry at *offset*."""
        if offset + erofs.XATTR_ENTRY.size > stop:
            raise bad("xattr", offset, "outside")
        name_size, number, size = erofs.XATTR_ENTRY.unpack_from(self._buffer, offset)
        if not name_size and not number and not size:
            return b"", b"", erofs.XATTR_ENTRY.size
        prefix = erofs.prefix(number)
        start = offset + erofs.XATTR_ENTRY.size
        end = start + name_size + size
        if prefix is None or end > stop:
            raise bad("xattr", offset, f"prefix {number}, {name_size} + {size} bytes")
        name = prefix + bytes(self._buffer[start : start + name_size])
        return name, bytes(self._buffer[start + name_size : end]), -(-(end - offset) // 4) * 4

    def _directory(self, nid: int) -> _Flat:
        head = self.head(nid)
        if not stat.S_ISDIR(head.mode):
            raise WrongKind(f"inode {nid} is no directory")
        if not head.size:
            raise bad(f"directory {nid}", head.offset, "has no entries, not even its dots")
        return self._flat(head)

    def _flat(self, head: Head) -> _Flat:
        if head.layout == erofs.CHUNKED:
            raise bad(f"inode {head.nid}", head.offset, "names or a target in chunks")
        blocks = -(-head.size // BLOCK)
        start = head.union * BLOCK
        inline = head.layout == erofs.INLINE
        tail = head.data if inline else start + (blocks - 1) * BLOCK
        last = tail + head.size - (blocks - 1) * BLOCK
        before = start + (blocks - inline) * BLOCK if blocks > inline else 0
        if last > self._size or before > erofs.round_block(self._size):
            raise bad(f"inode {head.nid}", head.offset, f"data up to byte {max(last, before)}")
        return _Flat(head.nid, head.size, start, blocks, tail)

    def _block(self, flat: _Flat, number: int) -> tuple[bytes, int]:
        """Return the bytes of a block and where they are."""
        if number == flat.blocks - 1:
            offset, size = flat.tail, flat.size - number * BLOCK
        else:
            offset, size = flat.start + number * BLOCK, BLOCK
        return bytes(self._buffer[offset : offset + size]), offset

    def _entry_count(self, data: bytes, offset: int) -> int:
        if len(data) < DIRENT.size:
            raise bad("directory block", offset, f"{len(data)} bytes")
        (start,) = erofs.DIRENT_NAME.unpack_from(data)
        if start % DIRENT.size or not 0 < start < len(data):
            raise bad("directory block", offset, f"names from byte {start} on")
        return int(start) // DIRENT.size

    def _first_name(self, flat: _Flat, number: int) -> bytes:
        data, offset = self._block(flat, number)
        count = self._entry_count(data, offset)
        start = count * DIRENT.size
        stop = erofs.DIRENT_NAMES.unpack_from(data)[1] if count > 1 else _end(data, start)
        if not start < stop <= len(data):
            raise bad("directory block", offset, f"a name from {start} to {stop}")
        return data[start:stop]

    def _find(self, flat: _Flat, number: int, name: bytes) -> int | None:
        """Return the nid that *name* has in a block."""
        data, offset = self._block(flat, number)
        count = self._entry_count(data, offset)
        low, high = 0, count
        while low < high:
            middle = (low + high) // 2
            place = middle * DIRENT.size
            if middle + 1 < count:
                start, stop = erofs.DIRENT_NAMES.unpack_from(data, place)
            else:
                (start,) = erofs.DIRENT_NAME.unpack_from(data, place)
                stop = _end(data, start)
            if not count * DIRENT.size <= start < stop:
                raise bad("directory entry", offset + place, f"a name from {start} to {stop}")
            found = data[start:stop]
            if found == name:
                (nid,) = erofs.DIRENT_NID.unpack_from(data, place)
                return self._inside(nid, offset)
            if found < name:
                low = middle + 1
            else:
                high = middle
        return None

    def _entries(self, flat: _Flat, number: int) -> _Block:
        data, offset = self._block(flat, number)
        count = self._entry_count(data, offset)
        fields = erofs.dirents(count).unpack_from(data)
        nids, starts, kinds = fields[0::4], fields[1::4], fields[2::4]
        stop = _end(data, starts[-1])
        names = [data[a:b] for a, b in zip(starts, (*starts[1:], stop), strict=True)]
        text = data[starts[0] : stop]
        if not all(names):
            raise bad("directory block", offset, "names out of order")
        if b"/" in text or b"\0" in text or not _KINDS.issuperset(kinds):
            raise bad("directory block", offset, "a name or a kind that is none")
        self._inside(max(nids), offset)
        return _Block(names, nids, kinds)

    def _inside(self, nid: int, offset: int) -> int:
        if nid >= self._nids:
            raise bad("directory block", offset, f"inode {nid} is outside the file")
        return nid


def _end(data: bytes, start: int) -> int:
    """Return where the last name of a block, from *start* on, ends."""
    stop = data.find(b"\0", start)
    return len(data) if stop < 0 else stop
