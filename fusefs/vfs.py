"""Vfs: images as one file system, with no kernel in it: node numbers in, values out.

A node number is ``slot << 40 | nid + 2``: 0 is illegal in FUSE, 1 is the root, and several images
in one session have a slot each. The same image in the same slot has the same numbers after a
restart of the daemon, so the kernel never notices one. A file handle is the node number.

One image alone is slot 0, and its root directory is node 1. Several lie side by side in a root
directory of their own, which is slot 0 then; they count from slot 1 in the order given.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from chunkstore import Blob, Buffer, Chunk, Extent, ExtentReader
from rafs import BadImage, Bootstrap, NoEntry

from .prefetch import Streams

ROOT = 1
SLOT_BITS = 40
_MAX_NID = (1 << SLOT_BITS) - 3

Attributes = tuple[int, int, int, int, int, int, int, int, int]
"""mode, nlink, uid, gid, rdev, size, mtime, mtime_nsec, ino."""

Listed = tuple[bytes, int, int]
"""Name, node and cookie of a directory entry."""


class Reader(ExtentReader, Protocol):
    """What a file's bytes come from, and what is told ahead of them."""

    def want(self, blob: Blob, chunks: Sequence[Chunk]) -> int:
        """Have *chunks* fetched behind the readers; return how many there was room for."""
        ...


@dataclass(frozen=True, slots=True)
class Image:
    """One image and where its bytes come from."""

    name: str
    """What its directory is called where several images lie side by side."""
    bootstrap: Bootstrap
    reader: Reader


class _Slot:
    """One image's part of the node numbers."""

    def __init__(self, number: int, image: Image) -> None:
        self.bootstrap = image.bootstrap
        self.reader = image.reader
        self.base = (number << SLOT_BITS) + 2
        self.top = ROOT if number == 0 else self.base + image.bootstrap.root
        """The node of its root directory."""
        self.streams = Streams()

    def nid(self, node: int) -> int:
        return self.bootstrap.root if node == ROOT else node - self.base

    def node(self, nid: int) -> int:
        if nid == self.bootstrap.root:
            return self.top
        if nid > _MAX_NID:
            raise BadImage(f"inode number {nid} does not fit {SLOT_BITS} bits")
        return self.base + nid

    def lookup(self, node: int, name: bytes) -> int | None:
        nid = self.bootstrap.lookup(self.nid(node), name)
        return None if nid is None else self.node(nid)

    def parent(self, node: int) -> int:
        return ROOT if node == self.top else self.node(self.bootstrap.parent(self.nid(node)))

    def attributes(self, node: int) -> Attributes:
        return self.bootstrap.attributes(self.nid(node))

    def listing(self, node: int, cookie: int) -> Iterator[Listed]:
        base = self.base
        for name, nid, place in self.bootstrap.scan(self.nid(node), cookie):
            if nid > _MAX_NID:
                raise BadImage(f"inode number {nid} does not fit {SLOT_BITS} bits")
            yield name, base + nid, place


class _Catalogue:
    """The root directory that several images lie in."""

    def __init__(self, slots: Mapping[bytes, _Slot]) -> None:
        self._slots = slots

    def lookup(self, node: int, name: bytes) -> int | None:
        slot = self._slots.get(name)
        return None if slot is None else slot.top

    def parent(self, node: int) -> int:
        return ROOT

    def attributes(self, node: int) -> Attributes:
        return stat.S_IFDIR | 0o755, 2 + len(self._slots), 0, 0, 0, 4096, 0, 0, ROOT

    def listing(self, node: int, cookie: int) -> Iterator[Listed]:
        for place, (name, slot) in enumerate(self._slots.items(), 1):
            if place > cookie:
                yield name, slot.top, place


class Vfs:
    """The file system; every method raises NoEntry, WrongKind or BadImage."""

    def __init__(self, images: Sequence[Image]) -> None:
        first = 0 if len(images) == 1 else 1
        self._images = {number: _Slot(number, image) for number, image in enumerate(images, first)}
        self._directories: dict[int, _Slot | _Catalogue] = dict(self._images)
        self.waiting = 0
        """How many reads wait for a source."""
        if first:
            names = [image.name.encode() for image in images]
            catalogue = dict(zip(names, self._images.values(), strict=True))
            if len(catalogue) != len(images):
                raise ValueError("two images of one name")
            self._directories[0] = _Catalogue(catalogue)

    def lookup(self, node: int, name: bytes) -> int | None:
        """Return the node called *name* in directory *node*, None if there is none."""
        return self._directory(node).lookup(node, name)

    def attributes(self, node: int) -> Attributes:
        """Return what ``stat`` shows; the last field is the image's own inode number."""
        return self._directory(node).attributes(node)

    def listing(self, node: int, cookie: int) -> Iterator[Listed]:
        """Yield a directory's entries behind *cookie*, without ``.`` and ``..``.

        Cookies are positive, grow, and are the same for the life of the image.
        """
        return self._directory(node).listing(node, cookie)

    def parent(self, node: int) -> int:
        """Return the directory that directory *node* is in; the root's is the root."""
        return self._directory(node).parent(node)

    def target(self, node: int) -> bytes:
        """Return a symlink's target."""
        slot = self._slot(node)
        return slot.bootstrap.target(slot.nid(node))

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        """Return all extended attributes, by full name."""
        slot = self._slot(node)
        nid = slot.nid(node)
        return slot.bootstrap.xattrs(nid) if slot.bootstrap.has_xattrs(nid) else {}

    def look(self, node: int, start: int, size: int) -> Buffer | None:
        """Return *size* bytes of a file from *start* on, if they are here; fewer at its end.

        The answer may be a view of the cache, right until the calling task next awaits.
        """
        slot = self._slot(node)
        extents = slot.bootstrap.extents(slot.nid(node), start, start + size)
        return slot.reader.look(extents) if extents else b""

    async def read(self, node: int, start: int, size: int) -> Buffer:
        """Return what ``look`` does, fetching what is missing; raises ChunkstoreError.

        The reader bounds how many wait for a source that does not move: each holds a request of
        the kernel's and a task, and there must be some for the other images.
        """
        slot = self._slot(node)
        extents = slot.bootstrap.extents(slot.nid(node), start, start + size)
        self.waiting += 1
        try:
            return await slot.reader.read(extents)
        finally:
            self.waiting -= 1

    def ahead(self, node: int, start: int, size: int) -> None:
        """Take note of a read, and have fetched what a sequential reader will ask for next."""
        slot = self._slot(node)
        nid = slot.nid(node)
        length = slot.bootstrap.attributes(nid)[5]
        if start + size >= length:
            return
        wanted = slot.streams.read(node, start, start + size, length)
        if wanted is not None and not _want(slot, slot.bootstrap.extents(nid, *wanted)):
            slot.streams.take_back(node, wanted[0])

    @property
    def bootstraps(self) -> Sequence[Bootstrap]:
        """The images' metadata."""
        return [slot.bootstrap for slot in self._images.values()]

    @property
    def inode_count(self) -> int:
        """How many inodes the images have."""
        return sum(slot.bootstrap.inode_count for slot in self._images.values())

    @property
    def size(self) -> int:
        """How many bytes of data the images have."""
        blobs = {blob.id: blob for slot in self._images.values() for blob in slot.bootstrap.blobs}
        return sum(blob.size for blob in blobs.values())

    def _slot(self, node: int) -> _Slot:
        slot = self._images.get(node >> SLOT_BITS)
        if slot is None:
            raise NoEntry(f"node {node} is in no image")
        return slot

    def _directory(self, node: int) -> _Slot | _Catalogue:
        place = self._directories.get(node >> SLOT_BITS)
        if place is None:
            raise NoEntry(f"node {node} is in no image")
        return place


def _want(slot: _Slot, extents: Sequence[Extent]) -> bool:
    """Have what *extents* need fetched ahead; False when there was no room for all."""
    for blob, group in itertools.groupby(extents, lambda extent: extent.blob):
        chunks = [extent.chunk for extent in group if extent.chunk is not None]
        if blob is not None and slot.reader.want(blob, chunks) < len(chunks):
            return False
    return True
