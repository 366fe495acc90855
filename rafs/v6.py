"""RAFS v6, read in place: an EROFS image with Nydus's tables. FORMAT.md has the layout."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence

from chunkstore import Buffer

from . import erofs
from . import v6_tables as tables
from .chunkmap import ChunkMap, ChunkTable, Places
from .erofs import bad
from .erofs_view import Erofs, Head
from .errors import Unsupported, WrongKind
from .metadata import Facts, Folder, Piece
from .v6_chunklist import ChunkList
from .v6_encode import encode
from .v6_folders import folders
from .v6_tables import BlobEntry

__all__ = ["V6", "BlobEntry", "ChunkList", "encode"]


class V6:
    """A RAFS v6 bootstrap; see ``metadata.Metadata``."""

    def __init__(self, buffer: Buffer, within: str = "") -> None:
        """Read the superblocks and the small tables of *buffer*; raises BadImage.

        *within* is the blob that it was found in, if any.
        """
        self.buffer = view = memoryview(buffer)
        facts = tables.unpack_super(view)
        start, count = facts.blobs
        entries = tuple(
            tables.named(tables.unpack_blob(view, start + index * tables.BLOB.size, index), within)
            for index in range(count)
        )
        start, count = facts.prefetch
        self.facts = Facts(
            version=6,
            root=facts.root,
            inode_count=facts.inode_count,
            chunk_size=facts.chunk_size,
            codec=facts.codec,
            algorithm=facts.algorithm,
            entries=entries,
            prefetch=tables.unpack_prefetch(view, start, count),
        )
        self.table = ChunkTable(view, *facts.chunks, entries)
        self._inodes = facts.meta
        self.erofs = Erofs(view, facts.meta, facts.shared_xattrs, facts.built)
        self.attributes = self.erofs.attributes
        self.lookup = self.erofs.lookup
        self.scan = self.erofs.scan
        self.listing = self.erofs.listing
        self.target = self.erofs.target
        self.has_xattrs = self.erofs.has_xattrs
        self.xattrs = self.erofs.xattrs
        if not stat.S_ISDIR(self.attributes(facts.root)[0]):
            raise bad("superblock", erofs.SUPER_OFFSET, f"the root, nid {facts.root}, is a file")

    def file(self, nid: int) -> _File:
        """Return where a regular file's bytes are."""
        head = self.erofs.head(nid)
        if not stat.S_ISREG(head.mode):
            raise WrongKind(f"inode {nid} is no regular file")
        if head.size and (head.layout != erofs.CHUNKED or not head.union & erofs.CHUNK_INDEXES):
            raise Unsupported(f"inode {nid} at byte {head.offset}: a file with no chunk indexes")
        return _File(self, head)

    def folders(self) -> Iterator[Sequence[Folder]]:
        """Yield which small files lie together, a directory's block at a time."""
        return folders(self.erofs, self.facts, self.buffer, self._inodes)

    def chunks(self, blob_index: int) -> ChunkMap:
        """Return the chunks that this image knows of a blob."""
        return ChunkMap(self.table, blob_index)

    def attach(self, blob_index: int, places: Places) -> None:
        """Take the stored places of a blob's chunks from *places* from now on."""
        self.table.attach(blob_index, places)

    def release(self) -> None:
        """Let go of the buffer."""
        self.buffer.release()


class _File:
    """The chunk indexes of one file."""

    __slots__ = ("_buffer", "_entries", "_indexes", "_nid", "_step", "_table", "size")

    def __init__(self, image: V6, head: Head) -> None:
        self.size = head.size
        self._nid = head.nid
        self._buffer = image.buffer
        self._table = image.table
        self._entries = image.facts.entries
        # What the inode's chunk format says may be larger, for Linux to see longer runs: there is
        # an index for each chunk_size step all the same.
        self._step = image.facts.chunk_size
        unit = erofs.INDEX.size
        self._indexes = head.offset + -(-(head.data - head.offset) // unit) * unit

    def at(self, position: int) -> Piece:
        """Return the piece that holds byte *position*."""
        number = position // self._step
        start = number * self._step
        stop = min(start + self._step, self.size)
        place = self._indexes + number * erofs.INDEX.size
        if place + erofs.INDEX.size > len(self._buffer):
            raise bad(f"chunk indexes of inode {self._nid}", place, "behind the end of the file")
        low, high, block = erofs.INDEX.unpack_from(self._buffer, place)
        if block == erofs.NO_BLOCK:
            return Piece(start, stop, None, None, 0)
        blob_index = (high & 0xFF) - 1
        if not 0 <= blob_index < len(self._entries):
            raise bad(f"chunk index of inode {self._nid}", place, f"device {high & 0xFF}")
        decoded = block * erofs.BLOCK
        wanted = decoded + position - start
        row = self._table.find(blob_index, (high >> 8) << 16 | low)
        chunk = None if row is None else self._table.chunk(row)
        if chunk is None or not chunk.offset <= wanted < chunk.stop:
            # The number names another chunk, or the step goes on in the next one.
            row = self._table.covering(blob_index, wanted)
            if row is None:
                raise bad(f"chunk index of inode {self._nid}", place, f"no chunk at byte {wanted}")
            chunk = self._table.chunk(row)
        inside = decoded - chunk.offset
        return Piece(
            start + max(0, -inside),
            min(stop, start - inside + chunk.size),
            self._entries[blob_index].blob,
            chunk,
            max(0, inside),
        )
