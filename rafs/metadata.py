"""Metadata: what a version of the format offers to the facade that all versions share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from chunkstore import Algorithm, Blob, Chunk, Codec

from .chunkmap import ChunkMap, Places
from .v6_tables import BlobEntry

Attributes = tuple[int, int, int, int, int, int, int, int, int]
"""mode, nlink, uid, gid, rdev, size, mtime, mtime_nsec, ino."""


Folder = tuple[int, Sequence[int]]
"""A blob's number, and the indices of chunks in it: those of small files that lie together."""


class Piece(NamedTuple):
    """A range of a file that lies in one chunk, or in none: a hole."""

    start: int
    """In the file."""
    stop: int
    blob: Blob | None
    chunk: Chunk | None
    offset: int
    """Where in the chunk the file's byte *start* is."""


class FileMap(Protocol):
    """Where the bytes of one regular file are."""

    size: int

    def at(self, position: int) -> Piece:
        """Return a piece that holds *position*, which is below ``size``; raises BadImage."""
        ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What is true of a whole image."""

    version: int
    root: int
    """The root directory's nid."""
    inode_count: int
    chunk_size: int
    """The largest chunk that a file may have."""
    codec: Codec
    """Of the last build or merge; each blob has its own."""
    algorithm: Algorithm
    entries: tuple[BlobEntry, ...]
    prefetch: tuple[int, ...]
    """Nids of files and directories to fetch ahead, in this order."""


class Metadata(Protocol):
    """An image's bootstrap in one version of the format; each method raises BadImage.

    A nid that the image has never given may raise BadImage or answer nonsense, in bounded time.
    Methods that do not fit the inode's kind raise WrongKind.
    """

    facts: Facts

    def attributes(self, nid: int) -> Attributes:
        """Return what ``stat`` shows, as quickly as can be."""
        ...

    def lookup(self, nid: int, name: bytes) -> int | None:
        """Return the nid of *name* in a directory; ``.`` and ``..`` are names, too."""
        ...

    def scan(self, nid: int, cookie: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield (name, nid, cookie) after *cookie*, without ``.`` and ``..``, as quickly as can be.

        Cookies are positive, grow, fit 63 bits and are the same for the life of the image; 0 is
        the start.
        """
        ...

    def listing(self, nid: int, cookie: int) -> Iterator[tuple[bytes, int, int, int]]:
        """Yield what ``scan`` does with the kind's number behind it."""
        ...

    def target(self, nid: int) -> bytes:
        """Return a symlink's target."""
        ...

    def has_xattrs(self, nid: int) -> bool:
        """Say whether there are any, cheaply."""
        ...

    def xattrs(self, nid: int) -> dict[bytes, bytes]:
        """Return all, by full name."""
        ...

    def file(self, nid: int) -> FileMap:
        """Return where a regular file's bytes are."""
        ...

    def folders(self) -> Iterator[Sequence[Folder]]:
        """Yield which small files, of one chunk each, lie together: some of a directory's a time.

        It need not know of all. None at all in v5.
        """
        ...

    def chunks(self, blob_index: int) -> ChunkMap:
        """Return the chunks that this image knows of a blob."""
        ...

    def attach(self, blob_index: int, places: Places) -> None:
        """Take the stored places of a blob's chunks from *places* from now on."""
        ...

    def release(self) -> None:
        """Let go of the buffer."""
        ...
