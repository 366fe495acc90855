"""Vfs: images as one file system, with no kernel in it: node numbers in, values out.

A node number is ``slot << 40 | nid + 2``: 0 is illegal in FUSE, 1 is the root, and several images
in one session have a slot each. The same image in the same slot has the same numbers after a
restart of the daemon, so the kernel never notices one. A file handle is the node number.

An image alone is slot 0, and its root directory is node 1. In a catalogue images lie side by side
in a root directory of their own, which is slot 0 then; they come and go while it is mounted, each
with a slot that it keeps (`Slots`). What an image shows is its tree, or its decoded blobs as files
(`BlobFiles`): a tree, too.

Tasks: of the event loop. ``add`` and ``remove`` do not await.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from chunkstore import Buffer, Extent, Unreachable
from rafs import BadImage, NoEntry

from .errors import FusefsError
from .neighbours import Neighbours
from .prefetch import Streams
from .slots import Slots
from .tree import Attributes, Ended, Listed, Reader, Tree

ROOT = 1
SLOT_BITS = 40
_MAX_NID = (1 << SLOT_BITS) - 3

WAITING_READS = 1536
"""Reads of all images that may wait before one image's is refused that has its share; less than
what the kernel lets be under way (`fusefs.mounting.device`), so that every other image goes on."""

SHARE = 64
"""Waiting reads that an image may have however many the others have."""

SMALL = 128 << 10
"""Bytes of a file, or of a read of a blob, that the disk begins to read before anything else is
known: to find out where it lies and whether it is here takes as long as the disk does."""

UNREAD = 8
"""Opens that no read follows, because the kernel has the pages, until none is foreseen any more."""

_FORESEEN = 1024
"""Opened files that nobody has read yet whose place is remembered."""

_LARGE = 512 << 10
"""Bytes of a read of a blob by which the kernel shows that it reads ahead in a large file: small
files lie side by side in a blob, and who reads some of them wants no more of the blob."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image and where its bytes come from."""

    name: str
    """What its directory is called where several images lie side by side."""
    tree: Tree
    reader: Reader
    direct: bool = False
    """Whether its files are read past the page cache: by the kernel's EROFS, which has its own."""
    wholly: bool = True
    """Whether its files are what programs read, and may be fetched as a whole; not an image's
    blobs, of which a container needs a part."""


class _Slot:
    """One image's part of the node numbers."""

    def __init__(self, number: int, image: Image) -> None:
        self.name = image.name
        self.tree = image.tree
        self.reader = image.reader
        self.direct = image.direct
        self.wholly = image.wholly
        self.base = (number << SLOT_BITS) + 2
        self.top = ROOT if number == 0 else self.base + image.tree.root
        """The node of its root directory."""
        self.streams = Streams()
        self.neighbours = Neighbours(image.tree, image.reader.want)
        self.waiting = 0
        """How many of its reads wait for a source."""

    def nid(self, node: int) -> int:
        return self.tree.root if node == ROOT else node - self.base

    def node(self, nid: int) -> int:
        if nid == self.tree.root:
            return self.top
        if nid > _MAX_NID:
            raise BadImage(f"inode number {nid} does not fit {SLOT_BITS} bits")
        return self.base + nid

    def lookup(self, node: int, name: bytes) -> int | None:
        nid = self.tree.lookup(self.nid(node), name)
        return None if nid is None else self.node(nid)

    def parent(self, node: int) -> int:
        return ROOT if node == self.top else self.node(self.tree.parent(self.nid(node)))

    def attributes(self, node: int) -> Attributes:
        return self.tree.attributes(self.nid(node))

    def listing(self, node: int, cookie: int) -> Iterator[Listed]:
        base = self.base
        for name, nid, place in self.tree.scan(self.nid(node), cookie):
            if nid > _MAX_NID:
                raise BadImage(f"inode number {nid} does not fit {SLOT_BITS} bits")
            yield name, base + nid, place


class _Catalogue:
    """The root directory that several images lie in."""

    def __init__(self) -> None:
        self.slots: dict[bytes, tuple[int, _Slot]] = {}
        """Number and slot by name; the numbers grow and are the cookies."""

    def lookup(self, node: int, name: bytes) -> int | None:
        found = self.slots.get(name)
        return None if found is None else found[1].top

    def parent(self, node: int) -> int:
        return ROOT

    def attributes(self, node: int) -> Attributes:
        return stat.S_IFDIR | 0o755, 2 + len(self.slots), 0, 0, 0, 4096, 0, 0, ROOT

    def listing(self, node: int, cookie: int) -> Iterator[Listed]:
        for number, name in sorted((number, name) for name, (number, _) in self.slots.items()):
            if number > cookie:
                yield name, self.slots[name][1].top, number


class Vfs:
    """The file system; every method raises NoEntry, WrongKind or BadImage."""

    def __init__(self, alone: Image | None = None, slots: Slots | None = None) -> None:
        """Show *alone* and nothing else, or a catalogue with nothing in it yet."""
        self._numbers = slots or Slots()
        self._images: dict[int, _Slot] = {}
        self._directories: dict[int, _Slot | _Catalogue] = {}
        self._catalogue = _Catalogue()
        self._changed: Callable[[], None] = lambda: None
        self.waiting = 0
        """How many reads wait for a source."""
        self.fixed = alone is not None
        """Whether what is shown stays as it is."""
        self._foreseen: dict[int, tuple[int, Sequence[Extent]]] = {}
        """Size and extents of small files that were opened a moment ago, by node."""
        self._unread = 0
        """Files foreseen since the last read of a file's beginning."""
        if alone is not None:
            self._images[0] = self._directories[0] = _Slot(0, alone)
        else:
            self._directories[0] = self._catalogue

    def add(self, image: Image) -> int:
        """Show *image* in the catalogue from now on and return its directory's node.

        Its slot is the one that its name had in a daemon before this one. Raises FusefsError when
        the name is taken or no slot can be had, ValueError for what cannot be a name.
        """
        name = image.name.encode()
        if self.fixed or not name or b"/" in name or b"\0" in name or name in (b".", b".."):
            raise ValueError(f"{image.name!r}: not a name for a directory in this file system")
        if name in self._catalogue.slots:
            raise FusefsError(f"{image.name}: shown already")
        number = self._numbers.take(image.name)
        slot = _Slot(number, image)
        self._images[number] = self._directories[number] = slot
        self._catalogue.slots[name] = number, slot
        return slot.top

    def remove(self, name: str) -> None:
        """Show the image called *name* no more; what is still open of it fails from now on.

        Raises NoEntry when there is none.
        """
        found = self._catalogue.slots.pop(name.encode(), None)
        if found is None:
            raise NoEntry(f"{name}: no such image")
        number, _ = found
        del self._images[number], self._directories[number]
        self._numbers.drop(name)
        self._changed()

    def on_removal(self, forget: Callable[[], None]) -> None:
        """Have *forget* called whenever an image has gone."""
        self._changed = forget

    def node(self, nid: int, slot: int = 0) -> int:
        """Return the node of inode *nid* of an image; slot 0 is the one that is alone."""
        return self._images[slot].node(nid)

    def top(self, node: int) -> int:
        """Return the root directory of the image that *node* is in."""
        return self._slot(node).top

    def lasts(self, node: int) -> bool:
        """Say whether what directory *node* holds stays as it is."""
        return self.fixed or node != ROOT

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
        return slot.tree.target(slot.nid(node))

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        """Return all extended attributes, by full name."""
        slot = self._slot(node)
        nid = slot.nid(node)
        return slot.tree.xattrs(nid) if slot.tree.has_xattrs(nid) else {}

    def foresee(self, node: int, size: int) -> None:
        """Have the disk begin to read a file of *size* bytes that was opened, if it is small."""
        if not 0 < size <= SMALL or self._unread >= UNREAD:
            return
        self._unread += 1
        slot = self._slot(node)
        extents = slot.tree.extents(slot.nid(node), 0, size)
        for extent in extents:
            if extent.blob is not None and extent.chunk is not None:
                start = extent.chunk.offset
                slot.reader.hasten(extent.blob, start + extent.start, start + extent.stop)
        if len(self._foreseen) >= _FORESEEN:
            self._foreseen.clear()
        self._foreseen[node] = size, extents

    def hasten(self, node: int, start: int, size: int) -> None:
        """Have the disk begin to read a small range of a blob, before it is known what it is."""
        if size <= SMALL:
            slot = self._slot(node)
            if slot.direct and (blob := slot.tree.blob_of(slot.nid(node))) is not None:
                slot.reader.hasten(blob, start, start + size)

    def look(self, node: int, start: int, size: int) -> Buffer | None:
        """Return *size* bytes of a file from *start* on, if they are here; fewer at its end.

        The answer may be a view of the cache, right until the calling task next awaits.
        """
        slot = self._slot(node)
        foreseen = None
        if not start:
            self._unread, foreseen = 0, self._foreseen.pop(node, None)
        if foreseen is not None and foreseen[0] <= size:
            _, extents = foreseen
        else:
            extents = slot.tree.extents(slot.nid(node), start, start + size)
        if slot.neighbours.brought:
            slot.neighbours.read(extents)
        return slot.reader.look(extents) if extents else b""

    async def read(self, node: int, start: int, size: int) -> Buffer:
        """Return what ``look`` does, fetching what is missing; raises ChunkstoreError.

        The reader bounds how many wait for a source that does not move: each holds a request of
        the kernel's and a task, and there must be some for the other images.
        """
        slot = self._slot(node)
        extents = slot.tree.extents(slot.nid(node), start, start + size)
        if self.waiting >= WAITING_READS and slot.waiting >= SHARE:
            raise Unreachable(f"{slot.name}: {slot.waiting} of {self.waiting} waiting reads")
        slot.neighbours.missed(extents)
        self.waiting += 1
        slot.waiting += 1
        try:
            return await slot.reader.read(extents)
        finally:
            self.waiting -= 1
            slot.waiting -= 1

    async def from_disk(self, node: int, start: int, size: int) -> Buffer | None:
        """Return what ``read`` does of what is here, but not in memory; None of anything else.

        It is the caller's until it has given it to `lend`, once.
        """
        slot = self._slot(node)
        extents = slot.tree.extents(slot.nid(node), start, start + size)
        return await slot.reader.from_disk(extents) if extents else None

    def lend(self, node: int, data: Buffer | None) -> None:
        """Give back what ``from_disk`` gave, as soon as the calling task awaits."""
        self._slot(node).reader.lend(data)

    def ahead(self, node: int, start: int, size: int) -> int | None:
        """Take note of a read, and have fetched what a sequential reader will ask for next.

        Return where the file is better fed from, if that is so; see `Streams`. What is here needs
        no feed: to push it would take a copy more than to answer what the kernel asks for.
        """
        slot = self._slot(node)
        nid = slot.nid(node)
        length = slot.tree.attributes(nid)[5]
        if start + size >= length or (not slot.wholly and size < _LARGE):
            return None
        wanted = slot.streams.read(node, start, start + size, length)
        if wanted is not None and not _want(slot, slot.tree.extents(nid, *wanted)):
            slot.streams.take_back(node, wanted[0])
        begin = slot.streams.bulk(node, length) if slot.wholly else None
        if begin is None:
            return None
        first, last = wanted or (start, start + size)
        return None if slot.reader.has(slot.tree.extents(nid, first, last)) else begin

    def expect(self, node: int, start: int, stop: int, ended: Ended) -> bool:
        """Have a range of a file fetched behind the readers and tell *ended* once; False: no room.

        *ended* may be told before this returns.
        """
        slot = self._slot(node)
        return slot.reader.expect(slot.tree.extents(slot.nid(node), start, stop), ended)

    def caches(self, node: int) -> bool:
        """Say whether the kernel keeps pages of a file as a file of this file system."""
        return not self._slot(node).direct

    def held(self, node: int, start: int, stop: int) -> AbstractContextManager[Buffer | None]:
        """Lend a range of a file to the kernel, from any thread; None if not all of it is here."""
        slot = self._slot(node)
        extents = slot.tree.extents(slot.nid(node), start, stop)
        return slot.reader.held(extents, paged_in=False)

    def let_go(self, node: int, start: int, stop: int) -> int:
        """Let go of the cache's pages of a range of a file, from any thread; return what stayed."""
        slot = self._slot(node)
        return slot.reader.let_go(slot.tree.extents(slot.nid(node), start, stop))

    @property
    def trees(self) -> Sequence[Tree]:
        """What the images show."""
        return [slot.tree for slot in self._images.values()]

    @property
    def inode_count(self) -> int:
        """How many inodes the images have."""
        return sum(slot.tree.inode_count for slot in self._images.values())

    @property
    def size(self) -> int:
        """How many bytes of data the images have."""
        blobs = {blob.id: blob for slot in self._images.values() for blob in slot.tree.blobs}
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
