"""Tree and Reader: what an image shows, and what its files' bytes come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from chunkstore import Blob, Buffer, Chunk, ChunkstoreError, Extent, ExtentReader

Attributes = tuple[int, int, int, int, int, int, int, int, int]
"""mode, nlink, uid, gid, rdev, size, mtime, mtime_nsec, ino."""

Listed = tuple[bytes, int, int]
"""Name, node and cookie of a directory entry."""


Ended = Callable[[ChunkstoreError | None], None]
"""Told that bytes are here, or why they cannot be had; never awaits."""


class Reader(ExtentReader, Protocol):
    """What a file's bytes come from, and what is told ahead of them."""

    def want(self, blob: Blob, chunks: Sequence[Chunk]) -> int:
        """Have *chunks* fetched behind the readers; return how many there was room for."""
        ...

    def expect(self, extents: Sequence[Extent], ended: Ended) -> bool:
        """Have *extents* fetched behind the readers and tell *ended* once; False: no room."""
        ...

    def has(self, extents: Sequence[Extent]) -> bool:
        """Say whether all of *extents* is here, in memory or not."""
        ...

    def hasten(self, blob: Blob, start: int, stop: int) -> None:
        """Have the disk begin to read decoded bytes of *blob* that will be asked for."""
        ...

    async def from_disk(self, extents: Sequence[Extent]) -> Buffer | None:
        """Return what is here, but not in memory; None of anything else."""
        ...

    def lend(self, data: Buffer | None) -> Buffer | None:
        """Take back what ``from_disk`` gave, as soon as the calling task awaits."""
        ...

    def held(
        self, extents: Sequence[Extent], *, paged_in: bool = True
    ) -> AbstractContextManager[Buffer | None]:
        """Lend the bytes of *extents*, None if not all are here, across awaits and to threads.

        What was not *paged_in* may only be handed to the kernel.
        """
        ...

    def let_go(self, extents: Sequence[Extent]) -> int:
        """Let the kernel drop its pages of the cache with *extents*, from any thread.

        Return how many bytes stayed: those that are not on the disk yet.
        """
        ...


class Chunks(Protocol):
    """The chunks of one blob that an image knows of."""

    def get(self, index: int) -> Chunk | None:
        """Return the chunk that has *index* in its blob; raises BadImage."""
        ...


class Tree(Protocol):
    """Files by inode number, as a ``rafs.Bootstrap`` has them; what each raises is there, too."""

    @property
    def root(self) -> int:
        """The root directory."""
        ...

    @property
    def inode_count(self) -> int:
        """How many inodes there are."""
        ...

    @property
    def blobs(self) -> Sequence[Blob]:
        """What the bytes are in."""
        ...

    @property
    def attributes(self) -> Callable[[int], Attributes]:
        """Return what ``stat`` shows of an inode."""
        ...

    @property
    def lookup(self) -> Callable[[int, bytes], int | None]:
        """Return the inode of a name in a directory."""
        ...

    @property
    def scan(self) -> Callable[[int, int], Iterator[Listed]]:
        """Yield a directory's entries behind a cookie."""
        ...

    @property
    def target(self) -> Callable[[int], bytes]:
        """Return a symlink's target."""
        ...

    @property
    def has_xattrs(self) -> Callable[[int], bool]:
        """Say whether an inode has extended attributes."""
        ...

    @property
    def xattrs(self) -> Callable[[int], Mapping[bytes, bytes]]:
        """Return an inode's extended attributes."""
        ...

    @property
    def folders(self) -> Callable[[], Iterator[Sequence[tuple[int, Sequence[int]]]]]:
        """Yield which small files, of one chunk each, lie together in a directory.

        By the numbers of their blobs and the indices of their chunks; some at a time.
        """
        ...

    def parent(self, nid: int) -> int:
        """Return the directory that a directory is in."""
        ...

    def extents(self, nid: int, start: int, stop: int) -> Sequence[Extent]:
        """Return what holds a range of a file."""
        ...

    def blob_of(self, nid: int) -> Blob | None:
        """Return the blob that a file is, byte for byte, if it is one."""
        ...

    def by_index(self, blob: Blob) -> Chunks | None:
        """Return a blob's chunks by index, None where that means to read all metadata first."""
        ...
