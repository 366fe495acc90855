"""Bulk: a RAFS v6 bootstrap that is as nearly all are is found sound a directory at a time.

What `check` asks of every inode it asks here of a directory's files at once, as far as they are of
the common kind: extended, of one chunk, with one name and no xattrs. Every other inode is looked at
as `check` does. What is not surely sound is not said to be: then `check` tells what is wrong, if
anything is.
"""

from __future__ import annotations

import itertools
import operator
import stat
import struct
from collections.abc import Sequence
from typing import Final

from . import erofs
from . import v6_tables as tables
from .erofs import BLOCK, SLOT
from .errors import BadImage
from .finding import Report
from .inode import Kind
from .v6 import V6
from .v6_check import V6Check

_FILE: Final = struct.Struct("<HHH2xQI20xII16xHHI")
"""An extended inode and the chunk index behind it: format, xattr units, mode, size, u, mtime_nsec,
nlink, and the index."""
_SLOTS: Final = -(-_FILE.size // SLOT)
_FREE, _TAKEN = bytes(_SLOTS), b"\1" * _SLOTS
_PLAIN: Final = erofs.CHUNKED << 1 | 1
_REGULAR: Final = stat.S_IFREG >> 12
_RUN_BITS: Final = 0x1F
_NSEC: Final = 10**9
_DIRECTORY, _FILE_KIND = Kind.DIRECTORY.value, Kind.FILE.value


def is_sound(image: V6) -> bool:
    """Say whether *image* surely has nothing wrong with it that `check` could find."""
    report = Report()
    check = V6Check(image, report)
    try:
        for _ in check.tables():
            if report:
                return False
        return not report and _Survey(image, check).run() and not report
    except (BadImage, struct.error, ValueError):
        return False


class _Survey:
    """One look at all that the root leads to."""

    def __init__(self, image: V6, check: V6Check) -> None:
        self._image = image
        self._check = check
        self._meta = check.place(0)
        self._step = image.facts.chunk_size
        least = (self._step // BLOCK).bit_length() - 1
        self._formats = frozenset(erofs.CHUNK_INDEXES | n for n in range(least, _RUN_BITS + 1))
        self._linked: dict[int, tuple[int, int, int]] = {}
        """Kind, links and names so far of the inodes that say they have several names."""
        self._pending: list[tuple[int, int, int]] = []
        """Directories still to be listed, with their parents and links."""
        self._prefetched = set(image.facts.prefetch)

    def run(self) -> bool:
        root = self._image.facts.root
        self._prefetched.discard(root)
        self._enter(root, root)
        while self._pending:
            if not self._directory(*self._pending.pop()):
                return False
        counted = all(links == names for _, links, names in self._linked.values())
        return counted and not self._prefetched

    def _enter(self, nid: int, parent: int) -> bool:
        mode, links = self._check.inode(nid)
        self._pending.append((nid, parent, links))
        return stat.S_ISDIR(mode)

    def _directory(self, nid: int, parent: int, links: int) -> bool:
        names: list[bytes] = []
        nids: list[int] = []
        kinds: list[int] = []
        for _, some, numbers, theirs in self._image.erofs.blocks(nid):
            names += some
            nids += numbers
            kinds += theirs
        if not _in_order(names):
            return False
        for dot, itself in ((b"..", parent), (b".", nid)):
            place = names.index(dot)  # ValueError where there is none
            if nids[place] != itself:
                return False
            del nids[place], kinds[place], names[place]
        if self._prefetched:
            self._prefetched.difference_update(nids)
        if _DIRECTORY in kinds:
            below = [child for child, kind in zip(nids, kinds, strict=True) if kind == _DIRECTORY]
            others = [place for place, kind in enumerate(kinds) if kind != _DIRECTORY]
            nids, kinds = [nids[place] for place in others], [kinds[place] for place in others]
            if not all(self._enter(child, nid) for child in below):
                return False
            links -= len(below)
        return links == 2 and all(map(self._closer, *self._unusual(nids, kinds)))

    def _unusual(self, nids: Sequence[int], kinds: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return those of a directory's files that need a closer look; the others are sound."""
        buffer, taken, table = self._image.buffer, self._check.slots, self._image.table
        first, blobs, start, count = table.first, len(table.entries), table.start, table.count
        base, slot, step, formats = self._meta, self._meta // SLOT, self._step, self._formats
        spot, record, key = tables.CHUNK_SPOT.unpack_from, tables.CHUNK.size, tables.KEY_OFFSET
        places = [base + nid * SLOT for nid in nids]
        unusual = []
        found = map(_FILE.unpack_from, itertools.repeat(buffer), places)
        for number, (form, units, mode, size, union, nsec, nlink, low, high, block) in enumerate(
            found
        ):
            at = nids[number] + slot
            device, chunk = high & 0xFF, high >> 8 << 16 | low
            if (
                kinds[number] == _FILE_KIND
                and form == _PLAIN
                and mode >> 12 == _REGULAR
                and nlink == 1
                and 0 < size <= step
                and union in formats
                and not units
                and nsec < _NSEC
                and block != erofs.NO_BLOCK
                and 0 < device <= blobs
                and (row := first[device - 1] + chunk) < count
                and taken[at : at + _SLOTS] == _FREE
            ):
                blob, length, offset, index = spot(buffer, start + row * record + key)
                inside = block * BLOCK - offset
                if blob == device - 1 and index == chunk and 0 <= inside <= length - size:
                    taken[at : at + _SLOTS] = _TAKEN
                    continue
            unusual.append(number)
        return [nids[number] for number in unusual], [kinds[number] for number in unusual]

    def _closer(self, nid: int, kind: int) -> bool:
        """Look at one name of an inode that is no directory; say whether it is sound."""
        known = self._linked.get(nid)
        if known is not None:
            self._linked[nid] = (known[0], known[1], known[2] + 1)
            return kind == known[0]
        mode, links = self._check.inode(nid)
        if links != 1:
            self._linked[nid] = kind, links, 1
        return Kind.of(mode).value == kind


def _in_order(names: Sequence[bytes]) -> bool:
    """Say whether each of *names* is greater than the one before and none is too long."""
    ascending = all(map(operator.lt, names, itertools.islice(names, 1, None)))
    return ascending and max(map(len, names)) <= erofs.MAX_NAME
