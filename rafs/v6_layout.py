"""Layout: which slots the inodes of a tree get in a bootstrap, and which blocks their data.

Inodes come first, from the root on, the children of a directory side by side, so that a listing
with attributes reads the file in order. Names and targets that do not fit behind their inode come
after all inodes, in the same order. Positions here count from the start of the metadata area.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field

from . import erofs
from .erofs import BLOCK
from .errors import BadSource
from .tree import HOLE, Node

_HEAD = erofs.EXTENDED.size

DOTS = (b".", b"..")


@dataclass(frozen=True, slots=True)
class Flat:
    """Data that lies in the bootstrap itself: a directory's names, a symlink's target."""

    size: int
    first: int
    """Its first block, counted from the first block behind the inodes."""
    blocks: int
    inline: bool
    """Whether what the blocks do not hold stands behind the inode."""


@dataclass(slots=True)
class Layout:
    """Every inode with its place, in the order in which they are written."""

    order: list[Node] = field(default_factory=list)
    slots: dict[Node, int] = field(default_factory=dict)
    """First slot of each inode, from the root's on."""
    parents: dict[Node, Node] = field(default_factory=dict)
    """Of each directory."""
    flats: dict[Node, Flat] = field(default_factory=dict)
    links: dict[Node, int] = field(default_factory=dict)
    """Link counts, where they are not 1."""
    has_xattrs: bool = False
    size: int = 0
    """Bytes that the inodes take."""
    blocks: int = 0
    """Blocks behind the inodes."""

    @classmethod
    def of(cls, root: Node, chunk_size: int, chunk_count: int) -> Layout:
        """Place *root* and all below; raises BadSource naming what has no place in an image."""
        if not root.is_directory:
            raise BadSource("/: not a directory")
        layout = cls()
        layout.parents[root] = root
        try:
            layout._fill(root, _Sizes(chunk_size, chunk_count))
        except _Fault as fault:
            raise BadSource(f"{_path(root, fault.node)}: {fault.why}") from None
        return layout

    def _fill(self, root: Node, sizes: _Sizes) -> None:
        self._place(root, sizes)
        pending = [root]
        while pending:
            directory = pending.pop()
            below = []
            for name, node in sorted(directory.children.items()):
                if not _is_name(name):
                    raise _Fault(directory, f"a name that is none: {name!r}")
                if node in self.slots:
                    self._link(node)
                    continue
                if stat.S_ISDIR(node.mode):
                    below.append(node)
                    self.parents[node] = directory
                self._place(node, sizes)
            self.links[directory] = 2 + len(below)
            pending.extend(reversed(below))

    def _link(self, node: Node) -> None:
        if stat.S_ISDIR(node.mode):
            raise _Fault(node, "a directory under two names")
        self.links[node] = self.links.get(node, 1) + 1

    def _place(self, node: Node, sizes: _Sizes) -> None:
        head, body = _HEAD, 0
        if node.xattrs:
            head += sizes.xattrs(node)
            self.has_xattrs = True
        position = self.size
        kind = stat.S_IFMT(node.mode)
        if kind == stat.S_IFREG:
            body = -head % erofs.INDEX.size + erofs.INDEX.size * sizes.steps(node)
        elif kind == stat.S_IFDIR or kind == stat.S_IFLNK:
            position, body = self._flatten(node, position, head)
        elif kind not in _SPECIAL:
            raise _Fault(node, f"mode {node.mode:#o} is of no file type")
        if (node.uid | node.gid) >> 32 or not 0 <= node.mtime_nsec < _NSEC or node.mode >> 16:
            raise _Fault(node, _why(node))
        if not -_SECONDS <= node.mtime < _SECONDS or not erofs.fits_device_number(node.rdev):
            raise _Fault(node, _why(node))
        self.order.append(node)
        self.slots[node] = position // erofs.SLOT
        self.size = position + -(-(head + body) // erofs.SLOT) * erofs.SLOT

    def _flatten(self, node: Node, position: int, head: int) -> tuple[int, int]:
        """Place the data of a directory or symlink; return where its inode goes, and its tail."""
        if stat.S_ISDIR(node.mode):
            full, tail = erofs.blocks_of(sorted([*DOTS, *node.children]))
        else:
            full, tail = 0, len(node.target)
            if not 0 < tail <= erofs.MAX_TARGET or b"\0" in node.target:
                raise _Fault(node, f"a target of {tail} bytes that is no path")
        # Linux wants an inline tail in the block that its inode starts in.
        inline = head + tail <= BLOCK
        if inline and position % BLOCK + head + tail > BLOCK:
            position = erofs.round_block(position)
        blocks = full if inline else full + 1
        self.flats[node] = Flat(full * BLOCK + tail, self.blocks, blocks, inline)
        self.blocks += blocks
        return position, tail if inline else 0


@dataclass(frozen=True, slots=True)
class _Sizes:
    chunk_size: int
    chunk_count: int

    def steps(self, node: Node) -> int:
        """Return how many chunk indexes *node* has."""
        count = -(-node.size // self.chunk_size)
        if len(node.chunks) != count:
            raise _Fault(node, f"{len(node.chunks)} chunks where {count} belong")
        if count == 1 and node.chunks[0] < self.chunk_count:
            return 1
        for number in node.chunks:
            if number >= self.chunk_count and number != HOLE:
                raise _Fault(node, f"chunk {number} is not in the list")
        return count

    def xattrs(self, node: Node) -> int:
        """Return the bytes of *node*'s xattr body."""
        for name, value in node.xattrs.items():
            if fault := erofs.xattr_fault(name, value):
                raise _Fault(node, f"xattr {name.decode(errors='backslashreplace')}: {fault}")
        size = erofs.xattr_size(node.xattrs)
        if erofs.xattr_units(size) > 0xFFFF:
            raise _Fault(node, f"{size} bytes of xattrs, {erofs.xattr_bytes(0xFFFF)} fit")
        return size


class _Fault(Exception):
    """*node* has no place in an image; its path is found only when somebody must read it."""

    def __init__(self, node: Node, why: str) -> None:
        super().__init__(why)
        self.node = node
        self.why = why


def _path(root: Node, wanted: Node) -> str:
    pending, seen = [(b"/", root)], {root}
    while pending:
        path, node = pending.pop()
        for name, child in node.children.items():
            below = path + name
            if child is wanted:
                return below.decode(errors="backslashreplace")
            if child not in seen:
                seen.add(child)
                pending.append((below + b"/", child))
    return "/"


def _is_name(name: bytes) -> bool:
    return 0 < len(name) <= erofs.MAX_NAME and not (b"/" in name or b"\0" in name or name in DOTS)


def _why(node: Node) -> str:
    return (
        f"mode {node.mode:#o}, owner {node.uid}:{node.gid}, device {node.rdev:#x} or time "
        f"{node.mtime} s, {node.mtime_nsec} ns does not fit"
    )


_NSEC = 10**9
_SECONDS = 1 << 63
_SPECIAL = {stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK}
