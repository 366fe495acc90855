"""Archive: the members of a tar stream, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from chunkstore import Buffer
from rafs import tarformat
from rafs.errors import BadSource
from rafs.tarformat import BLOCK, Member, Records

from .streams import Stream

_EMPTY = bytes(BLOCK)

_LONG = {b"L": b"path", b"K": b"linkpath"}
"""GNU's headers for long names, by what pax calls them."""

_MAX_MAP = 1 << 20
"""Regions of a sparse file; GNU tar writes a region per hole, and file systems have few of them."""


class Archive:
    """Yields members; the data of the last one is what the stream gives next."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.ended = False
        """Whether the mark that ends an archive was there; without one it may be cut."""
        self._global: Records = []

    def __iter__(self) -> Iterator[Member]:
        """Yield members in the archive's order; raises BadSource."""
        while (member := self._member()) is not None:
            end = self.stream.position + _padded(member.stored)
            if member.mapped:
                member = self._mapped(member)
            yield member
            self.stream.skip(end - self.stream.position)

    def _member(self) -> Member | None:
        """Read headers until one speaks of a file; None at the end."""
        local: Records = []
        names: dict[bytes, bytes] = {}
        while (block := self._header()) is not None:
            flag, where = block[156:157], self._where()
            if flag not in b"xXgLK":
                member, more = tarformat.parse_header(block, self._global + local, names, where)
                if flag == b"S":
                    member = self._sparse(member, block, more)
                return member
            data = self._extension(block)
            if flag in _LONG:
                names[_LONG[flag]] = data.partition(b"\0")[0]
            elif flag == b"g":
                self._global += tarformat.parse_records(data, where)
            else:
                local += tarformat.parse_records(data, where)
        return None

    def _header(self) -> bytes | None:
        block = bytes(self.stream.some(BLOCK))
        if not block:
            return None
        if len(block) < BLOCK:
            block += self.stream.take(BLOCK - len(block))
        if block == _EMPTY:
            self.ended = True
            return None
        if block[156:157] == b"M":
            raise BadSource(f"{self._where()}: a part of an archive of several volumes")
        return block

    def _extension(self, block: bytes) -> bytes:
        size = tarformat.extension_size(block, self._where())
        data = bytes(self.stream.take(size))
        self.stream.skip(_padded(size) - size)
        return data

    def _sparse(self, member: Member, block: bytes, more: bool) -> Member:
        """Read the map of a GNU sparse file, which may go on in further blocks."""
        regions, _ = tarformat.sparse_regions(block, True, self._where())
        while more:
            block = bytes(self.stream.take(BLOCK))
            found, more = tarformat.sparse_regions(block, False, self._where())
            regions += found
            if len(regions) > _MAX_MAP:
                raise BadSource(f"{self._where()}: a sparse map of more than {_MAX_MAP} regions")
        return tarformat.checked_regions(replace(member, regions=regions), self._where())

    def _mapped(self, member: Member) -> Member:
        """Read the map of a pax 1.0 sparse file: decimal numbers, a line each, before its data."""
        lines = _Lines(self.stream, member.stored, self._where())
        count = lines.number()
        if count > _MAX_MAP:
            raise BadSource(f"{self._where()}: a sparse map of {count} regions")
        regions = [(lines.number(), lines.number()) for _ in range(count)]
        found = replace(member, regions=regions, stored=member.stored - lines.taken, mapped=False)
        return tarformat.checked_regions(found, self._where())

    def _where(self) -> str:
        return f"{self.stream.what}, byte {self.stream.position}"


class _Lines:
    """Numbers from the start of a member's data, which end with a whole block."""

    def __init__(self, stream: Stream, limit: int, where: str) -> None:
        self.taken = 0
        self._stream = stream
        self._limit = limit
        self._where = where
        self._rest = b""

    def number(self) -> int:
        """Return the next number; raises BadSource."""
        while b"\n" not in self._rest:
            if self.taken + BLOCK > self._limit or len(self._rest) > BLOCK:
                raise BadSource(f"{self._where}: a damaged sparse map")
            self._rest += self._stream.take(BLOCK)
            self.taken += BLOCK
        line, _, self._rest = self._rest.partition(b"\n")
        return tarformat.parse_integer(line, self._where)


def file_chunks(archive: Archive, member: Member, chunk_size: int) -> Iterator[Buffer | int]:
    """Yield a regular file's chunks in order: their bytes, or how many bytes of it are a hole.

    A hole starts on a chunk and ends on one, or with the file.
    """
    take = archive.stream.take
    if member.regions is None:
        for start in range(0, member.size, chunk_size):
            yield take(min(chunk_size, member.size - start))
        return
    base, chunk = 0, bytearray()
    for offset, size in member.regions:
        while size:
            first = offset - offset % chunk_size
            if first != base:
                if chunk:
                    yield _filled(chunk, min(chunk_size, member.size - base))
                    base, chunk = base + chunk_size, bytearray()
                if first > base:
                    yield first - base
                base = first
            step = min(size, base + chunk_size - offset)
            chunk += bytes(offset - base - len(chunk))
            chunk += take(step)
            offset, size = offset + step, size - step
    if chunk:
        length = min(chunk_size, member.size - base)
        yield _filled(chunk, length)
        base += length
    if base < member.size:
        yield member.size - base


def _filled(chunk: bytearray, size: int) -> bytes:
    return bytes(chunk.ljust(size, b"\0"))


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
