"""Tar headers: from bytes to members. Knows POSIX ustar and pax, and GNU's and Solaris's additions.

Names and values are bytes from end to end, as file systems have them, so binary xattrs survive.

Layout of a header block (POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar
Format"):

====== ==== ============================ ====== ==== ===============================
Offset Size Field                        Offset Size Field
====== ==== ============================ ====== ==== ===============================
0      100  name                         257    8    magic and version
100    8    mode                         329    8    device major
108    8    uid                          337    8    device minor
116    8    gid                          345    155  prefix of the name (ustar)
124    12   size                         386    96   4 sparse entries (GNU)
136    12   mtime                        482    1    more sparse entries follow (GNU)
148    8    checksum                     483    12   size of the sparse file (GNU)
156    1    type                         504    1    more follow (GNU, later blocks)
157    100  link target
====== ==== ============================ ====== ==== ===============================
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import unquote_to_bytes

from .errors import BadSource

BLOCK = 512

MAX_RECORDS = 8 << 20
"""Bytes of pax records that one member may have; 64 KiB is the most that one xattr can hold."""

MAX_NAME = 64 << 10
"""Bytes of a GNU long name; Linux ends paths at 4,096."""

MAX_SIZE = (1 << 63) - 1

Region = tuple[int, int]
"""Offset and size of data in a sparse file."""


class Type(enum.Enum):
    """What a member is; values are the type flags."""

    FILE = b"0"
    LINK = b"1"
    SYMLINK = b"2"
    CHARACTER = b"3"
    BLOCK = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"
    OTHER = b""
    """Something that no file system shows."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive."""

    name: bytes
    type: Type
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    """Seconds since 1970, rounded down; may be negative."""
    mtime_nsec: int = 0
    size: int = 0
    """Bytes of the file, holes and all."""
    stored: int = 0
    """Bytes of data that follow in the archive, without padding."""
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    regions: Sequence[Region] | None = None
    """Where the stored data goes in a sparse file; None: it is the whole file."""
    mapped: bool = False
    """The stored data begins with the sparse map (pax format 1.0)."""


Record = tuple[bytes, bytes]
Records = list[Record]
"""Pax records in their order: format 0.0 of sparse files repeats keys."""


def parse_header(
    block: bytes, records: Records, names: Mapping[bytes, bytes], where: str
) -> tuple[Member, bool]:
    """Decode a header *block* under the pax *records* and GNU long *names* that came before it.

    *names* are by the keys that pax has for them. Also says whether GNU sparse blocks follow.
    Raises BadSource, naming *where*.
    """
    if not _checksum_fits(block):
        raise BadSource(f"{where}: not a tar header")
    values = {**dict(records), **names}
    kind = _TYPES.get(block[156:157], Type.OTHER)
    name = values.get(b"path") or _name(block)
    if kind is Type.FILE and name.endswith(b"/"):
        kind = Type.DIRECTORY  # how archives before 1988 said it
    mtime, nsec = _time(values.get(b"mtime"), block, where)
    size = _pax_number(values.get(b"size"), where)
    stored = _number(block[124:136], where) if size is None else size
    member = Member(
        name=name,
        type=kind,
        mode=_number(block[100:108], where) & 0o7777,
        uid=_identity(values.get(b"uid"), block[108:116], where),
        gid=_identity(values.get(b"gid"), block[116:124], where),
        mtime=mtime,
        mtime_nsec=nsec,
        size=stored,
        stored=stored if _has_data(block[156:157], records) else 0,
        target=values.get(b"linkpath") or _text(block[157:257]),
        device=(_number(block[329:337], where), _number(block[337:345], where))
        if kind in _DEVICES
        else (0, 0),
        xattrs=_xattrs(records, where) if records else {},
    )
    if not 0 <= member.stored <= MAX_SIZE:
        raise BadSource(f"{where}: {shown(name)} has a size of {member.stored} bytes")
    if block[156:157] == b"S":
        return replace(member, size=_number(block[483:495], where), regions=[]), block[482] != 0
    return _pax_sparse(member, records, values, where), False


def extension_size(block: bytes, where: str) -> int:
    """Return how many bytes follow a header that only speaks of the next one; raises BadSource."""
    if not _checksum_fits(block):
        raise BadSource(f"{where}: not a tar header")
    limit = MAX_NAME if block[156:157] in b"LK" else MAX_RECORDS
    size = _number(block[124:136], where)
    if not 0 <= size <= limit:
        raise BadSource(f"{where}: {size} bytes of names or records")
    return size


def sparse_regions(block: bytes, first: bool, where: str) -> tuple[list[Region], bool]:
    """Return the regions that a GNU sparse block lists, and whether another one follows."""
    start, count, more = (386, 4, 482) if first else (0, 21, 504)
    regions = []
    for i in range(start, start + 24 * count, 24):
        if block[i] == 0:
            break
        regions.append((_number(block[i : i + 12], where), _number(block[i + 12 : i + 24], where)))
    return regions, block[more] != 0


def checked_regions(member: Member, where: str) -> Member:
    """Return *member* if its sparse regions ascend, fit its size and add up to its data."""
    stop = total = 0
    for offset, size in member.regions or ():
        if offset < stop or size < 0:
            raise BadSource(f"{where}: {shown(member.name)} has a sparse map that overlaps")
        stop, total = offset + size, total + size
    if not stop <= member.size <= MAX_SIZE or total != member.stored:
        raise BadSource(f"{where}: {shown(member.name)} has a sparse map that does not fit it")
    return member


def parse_records(data: bytes, where: str) -> Records:
    """Decode pax records, each ``LENGTH KEY=VALUE`` and a newline; raises BadSource."""
    records = []
    position, stop = 0, len(data)
    while position < stop and data[position]:
        space = data.find(b" ", position, position + 20)
        digits = data[position:space] if space > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        equals = data.find(b"=", space, end)
        if not position < equals < end <= stop or data[end - 1] != 0x0A:
            raise BadSource(f"{where}: a damaged pax record")
        records.append((data[space + 1 : equals], data[equals + 1 : end - 1]))
        position = end
    return records


def parse_map(numbers: Sequence[int], where: str) -> list[Region]:
    """Pair a flat list of offsets and sizes; raises BadSource."""
    if len(numbers) % 2:
        raise BadSource(f"{where}: a sparse map of {len(numbers)} numbers")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


_DIGITS = re.compile(rb"-?[0-9]{1,19}")


def parse_integer(text: bytes, where: str) -> int:
    """Read a decimal number as pax writes it; raises BadSource."""
    if not _DIGITS.fullmatch(text):
        raise BadSource(f"{where}: {shown(text)} is no number")
    return int(text)


def xattr_keyword(name: bytes) -> bytes:
    """Return the pax key of an xattr; GNU tar has it so that a key can hold no equals sign."""
    return _XATTR + name.replace(b"%", b"%25").replace(b"=", b"%3D")


_XATTR = b"SCHILY.xattr."


def _checksum_fits(block: bytes) -> bool:
    """Add all bytes, with blanks in the checksum's place; some early tars added signed bytes."""
    field = block[148:156]
    try:
        claimed = int(field.strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    total = sum(block) - sum(field) + len(field) * 0x20
    return claimed == total or claimed == total - 256 * sum(byte > 127 for byte in block)


def _has_data(flag: bytes, records: Records) -> bool:
    # Hard links with data are an option of pax; in older formats their size means nothing.
    return bool(records) if flag == b"1" else flag not in _WITHOUT_DATA


def _name(block: bytes) -> bytes:
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        return _text(block[345:500]) + b"/" + name
    return name


def _text(data: bytes) -> bytes:
    return data.partition(b"\0")[0]


def _number(data: bytes, where: str) -> int:
    if data[0] & 0x80:  # GNU: the rest is a big-endian number in two's complement
        value = int.from_bytes(data, "big", signed=True)
        return value if value < 0 and data[0] == 0xFF else value + (1 << 8 * len(data) - 1)
    text = data.strip(b" \0")
    try:
        return int(text, 8) if text else 0
    except ValueError as exc:
        raise BadSource(f"{where}: {shown(text)} is no octal number") from exc


def _pax_number(text: bytes | None, where: str) -> int | None:
    return parse_integer(text, where) if text else None


def _identity(text: bytes | None, data: bytes, where: str) -> int:
    value = parse_integer(text, where) if text else _number(data, where)
    # Some tools write -2 for nobody; file systems have 32 bits.
    return value & 0xFFFFFFFF


_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?")


def _time(text: bytes | None, block: bytes, where: str) -> tuple[int, int]:
    if not text:
        return _number(block[136:148], where), 0
    match = _TIME.fullmatch(text)
    if match is None:
        raise BadSource(f"{where}: {shown(text)} is no time")
    sign, whole, fraction = match.groups()
    nsec = int((fraction or b"")[:9].ljust(9, b"0"))
    if not sign:
        return int(whole), nsec
    return (-int(whole), 0) if nsec == 0 else (-int(whole) - 1, 1_000_000_000 - nsec)


def _xattrs(records: Records, where: str) -> dict[bytes, bytes]:
    found = {}
    for key, value in records:
        if key.startswith(_XATTR):
            name = key[len(_XATTR) :]
            found[name.replace(b"%3D", b"=").replace(b"%25", b"%")] = value
        elif key.startswith(b"LIBARCHIVE.xattr."):
            name = unquote_to_bytes(key[17:])
            try:
                found.setdefault(name, base64.b64decode(value + b"=" * (-len(value) % 4)))
            except binascii.Error as exc:
                raise BadSource(f"{where}: xattr {shown(name)} is not base64") from exc
    return found


def _pax_sparse(
    member: Member, records: Records, values: Mapping[bytes, bytes], where: str
) -> Member:
    if b"GNU.sparse.major" in values:
        if (values[b"GNU.sparse.major"], values.get(b"GNU.sparse.minor")) != (b"1", b"0"):
            raise BadSource(f"{where}: a sparse file of an unknown version")
        real, mapped, regions = b"GNU.sparse.realsize", True, []
    elif b"GNU.sparse.size" in values:
        real, mapped, regions = b"GNU.sparse.size", False, _listed_regions(records, where)
    else:
        return member
    size = parse_integer(values.get(real, b""), where)
    name = values.get(b"GNU.sparse.name") or member.name
    sparse = replace(member, name=name, size=size, regions=regions, mapped=mapped)
    return sparse if mapped else checked_regions(sparse, where)


def _listed_regions(records: Iterable[tuple[bytes, bytes]], where: str) -> list[Region]:
    numbers: list[int] = []
    for key, value in records:
        if key == b"GNU.sparse.map":
            numbers = [parse_integer(text, where) for text in value.split(b",") if text]
        elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            numbers.append(parse_integer(value, where))
    return parse_map(numbers, where)


def shown(name: bytes) -> str:
    """Return *name* as people read it."""
    return repr(name[:200].decode("utf-8", "backslashreplace"))


_TYPES = {
    **{kind.value: kind for kind in Type if kind.value},
    b"\0": Type.FILE,
    b"7": Type.FILE,  # contiguous
    b"S": Type.FILE,  # GNU sparse
    b"D": Type.DIRECTORY,  # GNU incremental: a listing follows as data
}

_WITHOUT_DATA = b"23456V"
"""Types behind which no data stands, whatever size they claim: a directory's is but a quota."""

_DEVICES = (Type.CHARACTER, Type.BLOCK)
