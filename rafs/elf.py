"""What an ELF file says it needs to start: pure, and content with any bytes.

Of the 64-bit little-endian kind, which is what x86-64, ARM and RISC-V run: System V ABI, chapters
4 and 5.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Read = Callable[[int, int], bytes]
"""Returns so many bytes of the file from an offset on; fewer at its end."""

_IDENT = b"\x7fELF\x02\x01"
_HEADER = struct.Struct("<16s2HI3QI6H")
_SEGMENT = struct.Struct("<2I6Q")
_ENTRY = struct.Struct("<qQ")

_LOAD, _DYNAMIC, _INTERP = 1, 2, 3
_NEEDED, _STRTAB, _RPATH, _RUNPATH = 1, 5, 15, 29

_SEGMENTS = 256
"""Of a file that are looked at."""

_DYNAMIC_SIZE = 64 << 10
"""Bytes of the table of what is needed that are looked at."""

_NAME = 4096
"""Bytes of a name at most."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the loader looks for."""

    interpreter: bytes
    """The loader itself; empty: none, as in libraries."""
    libraries: tuple[bytes, ...]
    paths: tuple[bytes, ...]
    """Where they are looked for first; ``$ORIGIN`` is the file's own folder."""


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def needs(read: Read) -> Needs | None:
    """Return what a file needs; None where it is no such ELF file."""
    head = read(0, _HEADER.size)
    if len(head) < _HEADER.size or not head.startswith(_IDENT):
        return None
    _, _, _, _, _, place, _, _, _, entry_size, count, _, _, _ = _HEADER.unpack(head)
    if entry_size != _SEGMENT.size:
        return None
    segments = list(_segments(read(place, min(count, _SEGMENTS) * _SEGMENT.size)))
    interpreter = b""
    entries: list[tuple[int, int]] = []
    for one in segments:
        if one.kind == _INTERP:
            interpreter = _text(read, one.offset, min(one.size, _NAME))
        elif one.kind == _DYNAMIC:
            entries = list(_entries(read(one.offset, min(one.size, _DYNAMIC_SIZE))))
    names = next((value for tag, value in entries if tag == _STRTAB), None)
    strings = None if names is None else _offset(segments, names)
    if strings is None:
        return Needs(interpreter, (), ())

    def named(*tags: int) -> Iterator[bytes]:
        for tag, value in entries:
            if tag in tags:
                yield _text(read, strings + value, _NAME)

    paths = [path for text in named(_RUNPATH, _RPATH) for path in text.split(b":") if path]
    return Needs(interpreter, tuple(filter(None, named(_NEEDED))), tuple(paths))


def _segments(table: bytes) -> Iterator[_Segment]:
    for start in range(0, len(table) - _SEGMENT.size + 1, _SEGMENT.size):
        kind, _, offset, address, _, size, _, _ = _SEGMENT.unpack_from(table, start)
        yield _Segment(kind, offset, address, size)


def _entries(table: bytes) -> Iterator[tuple[int, int]]:
    for start in range(0, len(table) - _ENTRY.size + 1, _ENTRY.size):
        tag, value = _ENTRY.unpack_from(table, start)
        if not tag:
            return
        yield tag, value


def _offset(segments: list[_Segment], address: int) -> int | None:
    """Return where in the file an address is loaded from."""
    for one in segments:
        if one.kind == _LOAD and one.address <= address < one.address + one.size:
            return one.offset + address - one.address
    return None


def _text(read: Read, start: int, limit: int) -> bytes:
    return read(start, limit).partition(b"\0")[0]
