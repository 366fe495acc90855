"""BlobFiles: the decoded blobs of an image as files, which the kernel's EROFS takes for devices.

A `tree.Tree` of one directory: file ``0`` is the image's first blob, as EROFS numbers its devices
from 1 on in the same order. A file is as long as its blob, rounded up to whole blocks; between the
chunks that this image knows of are holes, whatever another image has there: each image sees but
what its own bootstrap has digests for.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence

from chunkstore import Blob, Chunk, Extent
from rafs import Bootstrap, NoEntry, WrongKind

from .tree import Attributes, Listed

_ROOT = 0
_BLOCK = 4096


class BlobFiles:
    """The decoded blobs of one image."""

    root = _ROOT

    def __init__(self, bootstrap: Bootstrap) -> None:
        self.blobs: Sequence[Blob] = bootstrap.blobs
        self.inode_count = 1 + len(self.blobs)
        self._sizes = [-(-blob.size // _BLOCK) * _BLOCK for blob in self.blobs]
        self.by_index = bootstrap.by_index
        self.folders = bootstrap.folders
        self._chunks = [bootstrap.chunks(number) for number in range(len(self.blobs))]

    @property
    def names(self) -> Sequence[str]:
        """The files' names, in the order of the devices."""
        return [str(number) for number in range(len(self.blobs))]

    def attributes(self, nid: int) -> Attributes:
        """Return what ``stat`` shows; only root may read."""
        if nid == _ROOT:
            return stat.S_IFDIR | 0o700, 2, 0, 0, 0, 4096, 0, 0, _ROOT + 1
        return stat.S_IFREG | 0o400, 1, 0, 0, 0, self._sizes[self._number(nid)], 0, 0, nid + 1

    def lookup(self, nid: int, name: bytes) -> int | None:
        """Return the inode of a blob by its number's digits."""
        self._check_root(nid)
        number = int(name) if name.isdigit() and len(name) < 4 else -1
        found = 0 <= number < len(self.blobs) and name == b"%d" % number
        return number + 1 if found else None

    def scan(self, nid: int, cookie: int) -> Iterator[Listed]:
        """Yield the blobs behind *cookie*."""
        self._check_root(nid)
        for number in range(cookie, len(self.blobs)):
            yield b"%d" % number, number + 1, number + 1

    def parent(self, nid: int) -> int:
        """Return the only directory."""
        self._check_root(nid)
        return _ROOT

    def target(self, nid: int) -> bytes:
        """Refuse: there are no symlinks."""
        raise WrongKind(f"inode {nid} is no symlink")

    def has_xattrs(self, nid: int) -> bool:
        """Say no."""
        return False

    def xattrs(self, nid: int) -> Mapping[bytes, bytes]:
        """Return none."""
        return {}

    def blob_of(self, nid: int) -> Blob | None:
        """Return the blob that a file is."""
        return self.blobs[nid - 1] if 0 < nid <= len(self.blobs) else None

    def extents(self, nid: int, start: int, stop: int) -> Sequence[Extent]:
        """Return the chunks that ``[start, stop)`` of a decoded blob lies in, and the holes."""
        if nid == _ROOT:
            raise WrongKind("the blobs' directory is no file")
        number = self._number(nid)
        start, stop = max(start, 0), min(stop, self._sizes[number])
        blob = self.blobs[number]
        return list(_extents(blob, self._chunks[number].within(start, stop), start, stop))

    def _number(self, nid: int) -> int:
        if not 0 < nid <= len(self.blobs):
            raise NoEntry(f"inode {nid} is none of {len(self.blobs)} blobs")
        return nid - 1

    def _check_root(self, nid: int) -> None:
        if nid != _ROOT:
            raise WrongKind(f"blob {self._number(nid)} is no directory")


def _extents(blob: Blob, chunks: Iterator[Chunk], start: int, stop: int) -> Iterator[Extent]:
    position = start
    for chunk in chunks:
        if position < chunk.offset:
            yield Extent(None, None, 0, chunk.offset - position)
            position = chunk.offset
        end = min(chunk.stop, stop)
        if position < end:
            yield Extent(blob, chunk, position - chunk.offset, end - chunk.offset)
            position = end
    if position < stop:
        yield Extent(None, None, 0, stop - position)
