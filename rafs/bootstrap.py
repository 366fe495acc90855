"""Bootstrap: an image's whole metadata, whatever version of the format it is in."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from chunkstore import Algorithm, Blob, Buffer, Chunk, Codec, Digest, Extent

from . import extents as arithmetic
from .chunkmap import ChunkMap, Places
from .errors import BadImage
from .inode import Entry, Inode, Kind
from .metadata import Metadata
from .v5 import V5
from .v5_tables import is_v5
from .v6 import V6
from .v6_tables import BlobEntry

_V5 = 5

_KEPT_IN = 64 << 20
"""Bytes of a bootstrap that is brought into memory whole; that of 300,000 files."""

_POPULATE_READ = 22
"""MADV_POPULATE_READ, Linux 5.14."""


class Bootstrap:
    """A bootstrap, opened: inodes, names and the chunks of files, read in place.

    Every method raises BadImage when what it meets breaks the format, and WrongKind when it does
    not fit the inode's kind. ``attributes`` and ``scan`` say what ``inode`` and ``children`` do,
    without objects, for those who ask a million times.
    """

    def __init__(self, metadata: Metadata, mapped: mmap.mmap | None = None) -> None:
        self.metadata = metadata
        self.mapped = mapped
        facts = metadata.facts
        self.version: int = facts.version
        self.root: int = facts.root
        self.inode_count: int = facts.inode_count
        self.chunk_size: int = facts.chunk_size
        self.codec: Codec = facts.codec
        self.algorithm: Algorithm = facts.algorithm
        self.blob_entries: tuple[BlobEntry, ...] = facts.entries
        self.blobs: tuple[Blob, ...] = tuple(entry.blob for entry in facts.entries)
        self._numbers = {blob.id: number for number, blob in enumerate(self.blobs)}
        self.prefetch: Sequence[int] = facts.prefetch
        self.attributes = metadata.attributes
        self.scan = metadata.scan
        self.lookup = metadata.lookup
        self.target = metadata.target
        self.has_xattrs = metadata.has_xattrs
        self.xattrs = metadata.xattrs
        self.chunks = metadata.chunks
        self.folders = metadata.folders

    @classmethod
    def open(cls, path: Path, *, digest: Digest | None = None, within: str = "") -> Bootstrap:
        """Map the file at *path*, which must not change or shrink from now on.

        *within* is the id of the blob that it was found in: it cannot know that name itself.
        Raises BadImage, also when the file does not hash to *digest*; OSError.
        """
        with path.open("rb") as file:
            if not file.seek(0, 2):
                raise BadImage("superblock at byte 0: the file is empty")
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
        if digest is not None and not digest.matches(memoryview(mapped)):
            raise BadImage(f"the bootstrap does not match its digest {digest}")
        return cls(_metadata(mapped, within), mapped)

    @classmethod
    def decode(cls, buffer: Buffer, *, within: str = "") -> Bootstrap:
        """Read a bootstrap in memory; raises BadImage."""
        return cls(_metadata(buffer, within))

    def inode(self, nid: int) -> Inode:
        """Return what ``stat`` shows of *nid*."""
        mode, nlink, uid, gid, rdev, size, mtime, nsec, ino = self.attributes(nid)
        return Inode(nid, ino, mode, uid, gid, nlink, size, rdev, mtime, nsec)

    def children(self, nid: int, cookie: int = 0) -> Iterator[Entry]:
        """Yield the entries of a directory after *cookie*, without ``.`` and ``..``."""
        for name, child, place, kind in self.metadata.listing(nid, cookie):
            yield Entry(name, child, Kind(kind), place)

    def parent(self, nid: int) -> int:
        """Return the directory that directory *nid* is in; the root's is the root."""
        parent = self.lookup(nid, b"..")
        if parent is None:
            raise BadImage(f"directory {nid} has no entry '..'")
        return parent

    def extents(self, nid: int, start: int, stop: int) -> Sequence[Extent]:
        """Return what holds ``[start, stop)`` of a file, clipped to its size, in order."""
        return arithmetic.extents(self.metadata.file(nid), start, stop)

    def file_chunks(self, nid: int) -> Iterator[tuple[Blob, Chunk] | None]:
        """Yield what a whole file is made of, in order; None for a hole."""
        return arithmetic.file_chunks(self.metadata.file(nid))

    def blob_of(self, nid: int) -> Blob | None:
        """Return none: files are made of chunks."""
        return None

    def by_index(self, blob: Blob) -> ChunkMap | None:
        """Return the chunks of *blob*; None in v5, where that means to read every inode first."""
        return None if self.version == _V5 else self.chunks(self._numbers[blob.id])

    def attach(self, blob_index: int, places: Places) -> None:
        """Take the stored places of a blob's chunks from its own list, which *places* reads."""
        self.metadata.attach(blob_index, places)

    def page_in(self) -> None:
        """Have all of a file that is not very large in memory, and mapped.

        The kernel's EROFS reads the same pages, one at a time where it does not find them, and it
        takes those that nobody has mapped from memory first.
        """
        if self.mapped is not None and len(self.mapped) <= _KEPT_IN:
            with suppress(OSError):  # an older kernel, or a bad block: whoever reads it is told
                self.mapped.madvise(_POPULATE_READ)

    def close(self) -> None:
        """Let go of the file; nothing may be asked afterwards."""
        self.metadata.release()
        if self.mapped is not None:
            self.mapped.close()


def _metadata(buffer: Buffer | mmap.mmap, within: str) -> Metadata:
    view = memoryview(buffer)
    return V5(view, within) if is_v5(view) else V6(view, within)
