"""Encodes a tree as a RAFS v6 bootstrap, front to back, in memory that the tree alone decides."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from chunkstore import MAX_CHUNK, MIN_CHUNK, Algorithm, Buffer, Codec

from . import erofs
from . import v6_tables as tables
from .errors import BadSource
from .inode import Kind
from .tree import Node
from .v6_chunklist import ChunkList
from .v6_layout import DOTS, Layout
from .v6_tables import BlobEntry, Superblock

_FLUSH = 1 << 20
"""Bytes gathered before they are written."""

_DEVICE_ALIGNMENT = 0x8_0000
"""What Nydus rounds the place of a device in the flat address space to."""

_ROOT_SLOT = erofs.BLOCK // erofs.SLOT
"""One block lies between nid 0 and the root: glibc hides entries whose inode number is 0."""


def encode(
    root: Node,
    blobs: Sequence[BlobEntry],
    chunks: ChunkList,
    out: BinaryIO,
    *,
    chunk_size: int,
    prefetch: Sequence[Node] = (),
) -> None:
    """Write the bootstrap of the tree at *root* to *out*, which need not seek.

    *blobs* are those that *chunks* speak of, in the order of their numbers there. The same tree
    gives the same bytes. Raises BadSource naming what cannot be stored.
    """
    if chunk_size & (chunk_size - 1) or not MIN_CHUNK <= chunk_size <= MAX_CHUNK:
        raise BadSource(f"a chunk size of {chunk_size}")
    if len(prefetch) > tables.MAX_PREFETCH:
        raise BadSource(f"{len(prefetch)} files to prefetch, {tables.MAX_PREFETCH} fit")
    _check_blobs(blobs, chunk_size)
    chunks.check(blobs)
    layout = Layout.of(root, chunk_size, len(chunks))
    facts = _superblock(layout, blobs, chunks, chunk_size, len(prefetch))
    writer = _Writer(out)
    writer.write(tables.pack_super(facts, len(blobs)))
    writer.write_all(_devices(blobs, facts.blocks))
    writer.pad(facts.blobs[0])
    writer.write_all(tables.pack_blob(index, entry) for index, entry in enumerate(blobs))
    slots = layout.slots
    writer.write_all(tables.PREFETCH.pack(slots[node] + _ROOT_SLOT) for node in prefetch)
    writer.pad(facts.meta + erofs.BLOCK)
    _write_tree(writer, layout, chunks, chunk_size)
    writer.pad(facts.chunks[0])
    writer.write_all(chunks.records())
    writer.pad(facts.blocks * erofs.BLOCK)
    writer.flush()


def _check_blobs(blobs: Sequence[BlobEntry], chunk_size: int) -> None:
    if len(blobs) > tables.MAX_BLOBS:
        raise BadSource(f"{len(blobs)} blobs, {tables.MAX_BLOBS} fit")
    for entry in blobs:
        blob = entry.blob
        if len(blob.id) > tables.MAX_BLOB_ID or not blob.size or not blob.chunk_count:
            raise BadSource(f"blob {blob.id}: empty, or an id over {tables.MAX_BLOB_ID} bytes")
        if entry.chunk_size != chunk_size:
            raise BadSource(f"blob {blob.id}: chunk size {entry.chunk_size}, not {chunk_size}")


def _superblock(
    layout: Layout, blobs: Sequence[BlobEntry], chunks: ChunkList, chunk_size: int, prefetch: int
) -> Superblock:
    """Place the parts of the file one after the other."""
    blob_table = erofs.round_block(erofs.DEVICE_OFFSET + len(blobs) * erofs.DEVICE.size)
    prefetch_table = blob_table + len(blobs) * tables.BLOB.size
    meta = erofs.round_block(prefetch_table + prefetch * tables.PREFETCH.size)
    data = erofs.round_block(meta + erofs.BLOCK + layout.size)
    chunk_table = data + layout.blocks * erofs.BLOCK
    end = erofs.round_block(chunk_table + len(chunks) * tables.CHUNK.size)
    if end > tables.MAX_FILE:
        raise BadSource(f"a bootstrap of {end} bytes, {tables.MAX_FILE} fit")
    inlined = all(entry.features & tables.FEATURE_INLINED_DIGEST for entry in blobs)
    return Superblock(
        root=_ROOT_SLOT,
        inode_count=len(layout.order),
        meta=meta,
        shared_xattrs=0,
        flags=tables.HAS_XATTR * layout.has_xattrs | tables.INLINED_DIGEST * inlined,
        codec=blobs[-1].codec if blobs else Codec.NONE,
        algorithm=blobs[-1].algorithm if blobs else Algorithm.BLAKE3,
        chunk_size=chunk_size,
        blobs=(blob_table, len(blobs)),
        chunks=(chunk_table, len(chunks)),
        prefetch=(prefetch_table, prefetch),
        blocks=end // erofs.BLOCK,
    )


def _devices(blobs: Sequence[BlobEntry], first_free: int) -> Iterator[bytes]:
    mapped = first_free * erofs.BLOCK
    for entry in blobs:
        mapped = -(-mapped // _DEVICE_ALIGNMENT) * _DEVICE_ALIGNMENT
        blocks = -(-entry.blob.size // erofs.BLOCK)
        if mapped // erofs.BLOCK + blocks > 0xFFFF_FFFF:
            raise BadSource("blobs of more than 16 TiB in all")
        yield tables.pack_device(entry, blocks, mapped // erofs.BLOCK)
        mapped += blocks * erofs.BLOCK


def _write_tree(writer: _Writer, layout: Layout, chunks: ChunkList, chunk_size: int) -> None:
    """Write every inode with what follows it, then the blocks behind them."""
    base = writer.position
    data = erofs.round_block(base + layout.size)
    inodes = _Inodes(layout, chunks, chunk_size, data // erofs.BLOCK)
    slots, write, pad = layout.slots, writer.write, writer.pad
    for node in layout.order:
        pad(base + slots[node] * erofs.SLOT)
        write(inodes.pack(node))
    pad(data)
    for node, flat in layout.flats.items():
        if flat.blocks:
            for block in inodes.blocks(node)[: flat.blocks]:
                write(block)
                pad(erofs.round_block(writer.position))


class _Inodes:
    """Packs inodes, knowing where everything else is."""

    def __init__(self, layout: Layout, chunks: ChunkList, chunk_size: int, data: int) -> None:
        self._layout = layout
        self._chunks = chunks
        self._chunk_format = erofs.CHUNK_INDEXES | (chunk_size // erofs.BLOCK).bit_length() - 1
        self._data = data

    def pack(self, node: Node) -> bytes:
        """Return *node*'s inode, xattrs, and chunk indexes or inline tail."""
        kind = stat.S_IFMT(node.mode)
        size, union, form, tail = 0, 0, erofs.PLAIN, b""
        xattrs = erofs.pack_xattrs(node.xattrs) if node.xattrs else b""
        links = self._layout.links.get(node, 1)
        if kind == stat.S_IFREG:
            size, union, form = node.size, self._chunk_format, erofs.CHUNKED
            tail = bytes(-len(xattrs) % erofs.INDEX.size) + self._chunks.indexes(node.chunks)
        elif kind == stat.S_IFDIR or kind == stat.S_IFLNK:
            flat = self._layout.flats[node]
            size = flat.size
            union = self._data + flat.first if flat.blocks else 0
            if flat.inline:
                form, tail = erofs.INLINE, self.blocks(node)[-1]
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            union = erofs.pack_device_number(node.rdev)
        return self._head(node, (form, erofs.xattr_units(len(xattrs)), size, union, links)) + (
            xattrs + tail
        )

    def _head(self, node: Node, facts: tuple[int, int, int, int, int]) -> bytes:
        form, units, size, union, links = facts
        return erofs.EXTENDED.pack(
            1 | form << 1,
            units,
            node.mode,
            size,
            union,
            self._nid(node) & 0xFFFF_FFFF,
            node.uid,
            node.gid,
            node.mtime,
            node.mtime_nsec,
            links,
        )

    def _nid(self, node: Node) -> int:
        return self._layout.slots[node] + _ROOT_SLOT

    def blocks(self, node: Node) -> list[bytes]:
        """Return the data of a directory or symlink in blocks."""
        if not node.is_directory:
            return [node.target]
        nids = {b".": self._nid(node), b"..": self._nid(self._layout.parents[node])}
        kinds = dict.fromkeys(DOTS, Kind.DIRECTORY.value)
        for name, child in node.children.items():
            nids[name] = self._nid(child)
            kinds[name] = _KINDS[stat.S_IFMT(child.mode)]
        return list(erofs.pack_directory((name, nids[name], kinds[name]) for name in sorted(nids)))


_MODES = (
    stat.S_IFREG,
    stat.S_IFDIR,
    stat.S_IFCHR,
    stat.S_IFBLK,
    stat.S_IFIFO,
    stat.S_IFSOCK,
    stat.S_IFLNK,
)
_KINDS = {mode: Kind.of(mode).value for mode in _MODES}


class _Writer:
    """Gathers what is written and knows how far it is."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._pending = bytearray()
        self.position = 0

    def write(self, data: Buffer) -> None:
        """Add *data*."""
        self.position += len(data)
        if len(data) >= _FLUSH:
            self.flush()
            self._hand_on(data)
            return
        self._pending += data
        if len(self._pending) >= _FLUSH:
            self.flush()

    def write_all(self, parts: Iterable[Buffer]) -> None:
        """Add all of *parts*."""
        for part in parts:
            self.write(part)

    def pad(self, position: int) -> None:
        """Add zeros up to *position*."""
        if position > self.position:
            self.write(bytes(position - self.position))

    def flush(self) -> None:
        """Hand everything on."""
        self._hand_on(self._pending)
        self._pending.clear()

    def _hand_on(self, data: Buffer) -> None:
        with memoryview(data) as view:
            done = 0
            while done < len(view):
                done += self._out.write(view[done:])
