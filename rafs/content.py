"""What unpacking reads: an image's files in order, their data, and what of it is but zeros."""

from __future__ import annotations

import functools
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from chunkstore import Algorithm, Buffer, Digest, Extent

from .bootstrap import Bootstrap
from .errors import BadImage

SPAN = 4 << 20
"""Bytes of a file that are asked for at a time."""

SMALLEST_HOLE = 64 << 10
"""Bytes of a chunk of zeros that are worth a hole."""


class Reader(Protocol):
    """Where decoded, verified bytes come from: what ``ExtentReader`` is, for a thread."""

    def read(self, extents: Sequence[Extent]) -> Buffer:
        """Return the bytes of *extents*; the answer stays right until the next call.

        Raises ChunkstoreError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """A name in an image."""

    path: bytes
    """Without a slash in front; empty for the root."""
    nid: int
    first: bytes | None
    """The name that the same file came by before; None: this is the first."""
    mode: int
    uid: int
    gid: int
    rdev: int
    size: int
    mtime: int
    mtime_nsec: int


def places(image: Bootstrap) -> Iterator[Place]:
    """Yield all of an image, parents first, each directory sorted as the image has it.

    Raises BadImage, also for what no file system could show: a directory that comes twice, or a
    name that is a path.
    """
    links: dict[int, bytes] = {}
    directories = {image.root}
    pending = [(b"", image.root)]
    while pending:
        path, nid = pending.pop()
        mode, nlink, uid, gid, rdev, size, mtime, nsec, _ = image.attributes(nid)
        first = None
        if stat.S_ISDIR(mode):
            below = [(_below(path, name), child) for name, child, _ in image.scan(nid, 0)]
            for _, child in below:
                if stat.S_ISDIR(image.attributes(child)[0]):
                    if child in directories:
                        raise BadImage(f"directory {child} is in two places")
                    directories.add(child)
            pending.extend(reversed(below))
        elif nlink > 1:
            first = links.get(nid)
            links.setdefault(nid, path)
        yield Place(path, nid, first, mode, uid, gid, rdev, size, mtime, nsec)


def data_regions(image: Bootstrap, place: Place) -> Iterator[tuple[int, int]]:
    """Yield ``[start, stop)`` of a file's parts that are not known to be zeros."""
    start = stop = position = 0
    for first in range(0, place.size, SPAN):
        for extent in image.extents(place.nid, first, first + SPAN):
            if not is_zeros(extent):
                if stop < position:
                    if start < stop:
                        yield start, stop
                    start = position
                stop = position + extent.size
            position += extent.size
    if start < stop:
        yield start, stop


def read_regions(
    image: Bootstrap, place: Place, regions: Sequence[tuple[int, int]], reader: Reader
) -> Iterator[tuple[int, Buffer]]:
    """Yield the data of *regions* in order, each part with its offset; raises ChunkstoreError."""
    for start, stop in regions:
        for first in range(start, stop, SPAN):
            extents = image.extents(place.nid, first, min(first + SPAN, stop))
            yield first, reader.read(extents)


def is_zeros(extent: Extent) -> bool:
    """Say whether an extent is a hole, or of a chunk that by its digest has but zeros."""
    chunk = extent.chunk
    if chunk is None or chunk.size < SMALLEST_HOLE:
        return chunk is None
    return chunk.digest == _zeros(chunk.digest.algorithm, chunk.size)


@functools.lru_cache(8)
def _zeros(algorithm: Algorithm, size: int) -> Digest:
    return Digest.of(bytes(size), algorithm)


def _below(path: bytes, name: bytes) -> bytes:
    if not name or b"/" in name or b"\0" in name or name in (b".", b".."):
        raise BadImage(f"the name {name[:100]!r} in {path[:1000]!r} is none")
    return path + b"/" + name if path else name
