"""V5Check: what a RAFS v5 bootstrap must keep to beyond being readable."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from . import erofs
from . import v5_tables as tables
from .errors import BadImage
from .finding import Claims, Report
from .v5 import V5

_PAUSE = 1024


class V5Check:
    """See ``check.FormatCheck``."""

    def __init__(self, image: V5, report: Report) -> None:
        self._image = image
        self._report = report
        self._claims = Claims(len(image.buffer), tables.ALIGNMENT)
        self._super = tables.unpack_super(image.buffer)
        self._children = bytearray(self._super.inodes.count + 1)
        """Which rows were met as somebody's child."""
        self.limit = self._super.inodes.count + 1

    def place(self, nid: int) -> int:
        """Return the byte where an inode starts."""
        table = self._super.inodes
        row: int = tables.ROW.unpack_from(self._image.buffer, table.start + (nid - 1) * 4)[0]
        return row * tables.ALIGNMENT

    def tables(self) -> Iterator[None]:
        """Check the tables; that they do not overlap was seen when the image was opened."""
        facts = self._super
        self._claims.take(0, tables.SUPER_SIZE)
        for table in (facts.inodes, facts.prefetch, facts.blobs, facts.extended):
            self._claims.take(table.start, table.stop)
        ids = [entry.blob.id for entry in self._image.facts.entries]
        if len(set(ids)) != len(ids):
            self._report.add("blob table", facts.blobs.start, "a blob is listed twice")
        yield
        yield from self._chunks()

    def _chunks(self) -> Iterator[None]:
        """Check that the chunks of each blob lie behind one another."""
        try:
            for blob in range(len(self._image.facts.entries)):
                stop = 0
                for number, chunk in enumerate(self._image.chunks(blob)):
                    if chunk.offset < stop:
                        what = f"chunk {chunk.index} starts at {chunk.offset}, before {stop}"
                        self._report.add(f"blob {blob}", 0, what)
                    stop = max(stop, chunk.stop)
                    if not number % _PAUSE:
                        yield
        except BadImage as exc:
            self._report.caught(exc)

    def inode(self, nid: int) -> tuple[int, int]:
        """Check an inode, its xattrs and chunks, and that nothing else is where its parts are.

        Returns its mode and links.
        """
        start, stop = self._image.extent(nid)
        if not self._claims.take(start, stop):
            raise erofs.bad(f"inode {nid}", start, "in one place with something else")
        mode, links, _, _, _, size, *_ = self._image.attributes(nid)
        if stat.S_ISLNK(mode):
            self._image.target(nid)
        elif stat.S_ISREG(mode):
            file, position = self._image.file(nid), 0
            while position < size:
                position = file.at(position).stop
        for name in self._image.xattrs(nid):
            if erofs.prefix_of(name) is None:
                raise erofs.bad(f"inode {nid}", start, f"an xattr named {name!r}")
        return mode, links

    def names(self, nid: int, parent: int) -> Iterator[tuple[bytes, int, int]]:
        """Check a directory's names and yield each with nid and kind's number."""
        if self._image.lookup(nid, b"..") != parent:
            self._report.add(f"inode {nid}", self.place(nid), f"is not in inode {parent}")
        last, start = b"", self.place(nid)
        rows = self._image.rows(nid)
        if self._children.find(1, rows.start, rows.stop) >= 0:
            raise erofs.bad(f"inode {nid}", start, "has children that another has, too")
        self._children[rows.start : rows.stop] = b"\1" * len(rows)
        for name, child, _, kind in self._image.listing(nid, 0):
            if name <= last:
                raise erofs.bad(f"inode {nid}", start, f"{name!r} behind {last!r}")
            last = name
            yield name, child, kind
