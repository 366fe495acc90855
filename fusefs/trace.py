"""Trace: which files of an image are read, in the order of their first reads.

The list is made for ``naiad build --prefetch-list``: a path a line, written as it happens.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chunkstore import Extent
from rafs import Bootstrap

from .tree import Tree


class Trace:
    """Writes down the paths of files as they are told; a daemon after a crash goes on with it."""

    def __init__(self, path: Path, image: Bootstrap) -> None:
        """Append to the file at *path*; raises OSError."""
        self._paths = dict(_files(image))
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def note(self, nid: int) -> None:
        """Write down the file *nid*, if it is its first time."""
        path = self._paths.pop(nid, None)
        if path is not None:
            os.write(self._file, path + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Traced:
    """A tree that tells a trace what is read."""

    def __init__(self, tree: Tree, trace: Trace) -> None:
        self.root = tree.root
        self.inode_count = tree.inode_count
        self.blobs = tree.blobs
        self.attributes = tree.attributes
        self.lookup = tree.lookup
        self.scan = tree.scan
        self.target = tree.target
        self.has_xattrs = tree.has_xattrs
        self.xattrs = tree.xattrs
        self.parent = tree.parent
        self.blob_of = tree.blob_of
        self.by_index = tree.by_index
        self.folders = tree.folders
        self._tree = tree
        self._trace = trace

    def extents(self, nid: int, start: int, stop: int) -> Sequence[Extent]:
        """Return what holds a range of a file, which is about to be read."""
        self._trace.note(nid)
        return self._tree.extents(nid, start, stop)

    def __repr__(self) -> str:
        return f"Traced({self._tree!r})"


@contextmanager
def traced(image: Bootstrap, path: Path | None) -> Iterator[Tree]:
    """Yield *image*'s tree; with a *path* it writes its trace there."""
    if path is None:
        yield image
        return
    trace = Trace(path, image)
    try:
        yield Traced(image, trace)
    finally:
        trace.close()


def _files(image: Bootstrap) -> Iterator[tuple[int, bytes]]:
    """Yield the regular files with their paths; a path with a newline could not be listed."""
    seen = {image.root}
    pending = [(b"", image.root)]
    while pending:
        path, nid = pending.pop()
        for name, child, _ in image.scan(nid, 0):
            below = path + b"/" + name
            mode = image.attributes(child)[0]
            if stat.S_ISREG(mode) and b"\n" not in below:
                yield child, below
            elif stat.S_ISDIR(mode) and child not in seen:
                seen.add(child)
                pending.append((below, child))
