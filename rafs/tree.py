"""Node: a file of a tree that is being built; the tree is the root's children."""

from __future__ import annotations

import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

HOLE = 0xFFFF_FFFF
"""A number in ``Node.chunks`` that stands for a step of zeros with no chunk behind it."""


def _no_chunks() -> array[int]:
    return array("I")


@dataclass(slots=True, eq=False)
class Node:
    """A file of any kind; hard links are the same object under several names."""

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    """Seconds since 1970, may be negative."""
    mtime_nsec: int = 0
    rdev: int = 0
    """Devices: as ``os.makedev`` packs it."""
    size: int = 0
    """Regular files: bytes."""
    target: bytes = b""
    """Symlinks."""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    """By full name, ``security.capability``."""
    children: dict[bytes, Node] = field(default_factory=dict)
    """Directories, without ``.`` and ``..``; in any order."""
    chunks: array[int] = field(default_factory=_no_chunks)
    """Regular files: for each chunk_size step in file order its number in the image's ChunkList."""

    @property
    def is_directory(self) -> bool:
        """Say whether it can have children."""
        return stat.S_ISDIR(self.mode)

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Yield every name below with its node, parents first, each directory sorted by name.

        A path begins with no slash; a hard link comes once under each of its names.
        """
        pending = [(b"", self)]
        while pending:
            path, node = pending.pop()
            if path:
                yield path, node
            prefix = path + b"/" if path else b""
            pending.extend(
                (prefix + name, node.children[name]) for name in sorted(node.children, reverse=True)
            )
