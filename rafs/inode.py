"""Inode and Entry: what the tree says of a file, whatever format it was read from."""

from __future__ import annotations

import enum
import stat
from dataclasses import dataclass


class Kind(enum.Enum):
    """The seven file types; values are the numbers that EROFS gives them in directories."""

    FILE = 1
    DIRECTORY = 2
    CHARACTER = 3
    BLOCK = 4
    FIFO = 5
    SOCKET = 6
    SYMLINK = 7

    @classmethod
    def of(cls, mode: int) -> Kind:
        """Return the kind that *mode*'s type bits name; raises KeyError for none."""
        return _KINDS[stat.S_IFMT(mode)]


_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFLNK: Kind.SYMLINK,
}


@dataclass(frozen=True, slots=True)
class Inode:
    """A file's attributes as ``stat`` shows them."""

    nid: int
    """Its place in the bootstrap: v6, the 32-byte slot; v5, the inode number."""
    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    """Bytes; a symlink's is its target's length."""
    rdev: int
    """As ``os.makedev`` packs it; 0 unless a device."""
    mtime: int
    """Seconds since 1970, may be negative."""
    mtime_nsec: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory."""

    name: bytes
    nid: int
    kind: Kind
    cookie: int
    """Continues the listing after this entry; positive, the same for the life of the image."""
