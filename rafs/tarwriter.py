"""TarWriter: writes tar streams that every tool reads and nothing is lost in.

A member is written as POSIX ustar where that can hold it, with a pax header before it where not:
long names, large numbers, fractions of a second, times before 1970, xattrs, holes. The same
members give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chunkstore import Buffer

from .tarformat import BLOCK, Member, Record, Region, Type, xattr_keyword

Write = Callable[[Buffer], object]

_MAX_NAME = 100
_MAX_ID, _MAX_SIZE = 8**7 - 1, 8**11 - 1

_PAX = Member(b"././@PaxHeader", Type.OTHER, mode=0o644)

END = bytes(2 * BLOCK)
"""What ends an archive."""


class TarWriter:
    """Hands an archive to *write*, piece by piece."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._left = 0
        """Bytes of the last member that have not come yet."""
        self._padding = 0

    def add(self, member: Member) -> None:
        """Begin a member; the next ``stored`` bytes that are written are its data.

        Of a sparse one these are its regions' data, and ``stored`` is their sum.
        """
        if self._left:
            raise ValueError(f"{self._left} bytes of the last member never came")
        regions = b"" if member.regions is None else _map(member.regions, member.size)
        stored = len(regions) + member.stored
        if records := _records(member, stored):
            data = b"".join(_line(key, value) for key, value in records)
            self._write(_header(_PAX, b"x", len(data)))
            self._write(data + bytes(-len(data) % BLOCK))
        self._write(_header(member, member.type.value, stored))
        self._write(regions)
        self._left, self._padding = member.stored, -stored % BLOCK
        self._pad()

    def write(self, data: Buffer) -> None:
        """Write data of the last member."""
        self._write(data)
        self._left -= len(data)
        self._pad()

    def close(self) -> None:
        """Write the end."""
        self._write(END)

    def _pad(self) -> None:
        if not self._left and self._padding:
            self._write(bytes(self._padding))
            self._padding = 0


def _header(member: Member, flag: bytes, stored: int) -> bytes:
    major, minor = member.device
    block = bytearray(BLOCK)
    name, target = member.name[:_MAX_NAME], member.target[:_MAX_NAME]
    block[: len(name)] = name
    block[100:108] = b"%07o\0" % member.mode
    block[108:116] = _octal(member.uid, _MAX_ID, 7)
    block[116:124] = _octal(member.gid, _MAX_ID, 7)
    block[124:136] = _octal(stored, _MAX_SIZE, 11)
    block[136:148] = _octal(member.mtime, _MAX_SIZE, 11)
    block[148:156] = b" " * 8
    block[156:157] = flag
    block[157 : 157 + len(target)] = target
    block[257:265] = b"ustar\x0000"
    block[329:337] = _octal(major, _MAX_ID, 7)
    block[337:345] = _octal(minor, _MAX_ID, 7)
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _octal(number: int, limit: int, digits: int) -> bytes:
    """Return a number's field; 0 where only a pax record can hold it."""
    return b"%0*o\0" % (digits, number if 0 <= number <= limit else 0)


def _records(member: Member, stored: int) -> list[Record]:
    """Return what the header cannot say."""
    records: list[Record] = []
    if len(member.name) > _MAX_NAME:
        records.append((b"path", member.name))
    if len(member.target) > _MAX_NAME:
        records.append((b"linkpath", member.target))
    numbers = ((b"size", stored), (b"uid", member.uid), (b"gid", member.gid))
    for (key, number), limit in zip(numbers, (_MAX_SIZE, _MAX_ID, _MAX_ID), strict=True):
        if number > limit:
            records.append((key, b"%d" % number))
    if member.mtime_nsec or not 0 <= member.mtime <= _MAX_SIZE:
        records.append((b"mtime", _time(member.mtime, member.mtime_nsec)))
    records += [(xattr_keyword(name), member.xattrs[name]) for name in sorted(member.xattrs)]
    if member.regions is not None:
        records += [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", member.name),
            (b"GNU.sparse.realsize", b"%d" % member.size),
        ]
    return records


def _line(key: bytes, value: bytes) -> bytes:
    """Return a pax record, whose length counts its own digits."""
    rest = b" %b=%b\n" % (key, value)
    length = len(rest) + len(b"%d" % len(rest))
    if len(b"%d" % length) > len(b"%d" % len(rest)):
        length += 1
    return b"%d%b" % (length, rest)


def _time(seconds: int, nsec: int) -> bytes:
    total = seconds * 1_000_000_000 + nsec
    whole, fraction = divmod(abs(total), 1_000_000_000)
    sign = b"-" if total < 0 else b""
    return sign + b"%d.%09d" % (whole, fraction) if fraction else sign + b"%d" % whole


def _map(regions: Sequence[Region], size: int) -> bytes:
    """Return a sparse map of version 1.0: numbers, a line each, in whole blocks."""
    found = list(regions)
    if not found or sum(found[-1]) < size:
        found.append((size, 0))  # GNU tar makes a file as long as its last region reaches
    numbers = [len(found), *(number for region in found for number in region)]
    data = b"".join(b"%d\n" % number for number in numbers)
    return data + bytes(-len(data) % BLOCK)
