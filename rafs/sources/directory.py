"""A directory as the source of an image.

Two passes. ``prepare`` walks the tree: every attribute is known before any data is read, so the
size of the image is, too. ``read`` then opens the files in the order of their names, folder by
folder: small ones many to a task, large ones in parts of whole chunks.

That a file is the one that was seen and has not changed is told by its inode number and ctime:
Linux moves ctime at every write and at every change of an attribute, and programs cannot set it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rafs.chunking import steps
from rafs.packer import Packer
from rafs.packing import Packed, Rules
from rafs.tree import Node

from .files import FILE, FOLDER, Files, failed, read_span, shown
from .helpers import Helpers
from .source import Harvest
from .xattrs import Attributes

BATCH_BYTES, BATCH_FILES = 1 << 20, 128
"""How much of small files one task reads: handing a task over costs as much as several files."""

RUN = 1 << 20
"""Bytes of a large file that one task reads, if chunks are not larger."""


@dataclass(slots=True)
class _Folder:
    """The regular files of one directory."""

    files: Files
    nodes: list[Node] = field(default_factory=list)
    sparse: set[int] = field(default_factory=set)
    """Which of them have holes."""


class DirectorySource:
    """Everything below the directory *root*, mounts included."""

    def __init__(self, root: Path) -> None:
        self.place: Path | None = root
        self._root = root
        self._tree = Node(0)
        self._folders: list[_Folder] = []
        self._attributes = Attributes()
        self._links: dict[tuple[int, int], Node] = {}
        self._warnings: list[str] = []
        self._size = self._count = 0

    def prepare(self) -> int:
        """Walk the tree and return the bytes of all its files; raises BadSource."""
        top = os.fsencode(self._root)
        try:
            self._tree = _node(self._root.stat())
        except OSError as exc:
            raise failed(top, exc) from exc
        pending = [(top, self._tree)]
        while pending:
            path, node = pending.pop()
            try:
                pending.extend(reversed(self._walk(path, node)))
            except OSError as exc:
                name = os.fsencode(exc.filename) if isinstance(exc.filename, str | bytes) else path
                # An entry's look names it by itself.
                raise failed(name if name.startswith(path) else path + b"/" + name, exc) from exc
        return self._size

    def read(self, packer: Packer) -> Harvest:
        """Pack every file; raises BadSource when one cannot be read or has changed since."""
        with Helpers(packer.rules, self._attributes, self._count) as helpers:
            batch = _Batch(packer, helpers)
            for folder in self._folders:
                start = 0
                for number, node in enumerate(folder.nodes):
                    if node.size > packer.chunk_size:
                        batch.add(folder, start, number)
                        batch.run()
                        _read_large(packer, folder, number, self._attributes)
                        start = number + 1
                batch.add(folder, start, len(folder.nodes))
            batch.run()
            packer.drain()
        self._folders = []
        return Harvest(self._tree, self._warnings + self._attributes.warnings)

    def _walk(self, path: bytes, node: Node) -> list[tuple[bytes, Node]]:
        """Read one directory and return those below it."""
        below, folder = [], _Folder(Files(path))
        descriptor = os.open(path, FOLDER)
        try:
            node.xattrs = self._attributes.of(descriptor)
            with os.scandir(descriptor) as found:
                entries = sorted([(os.fsencode(entry.name), entry) for entry in found])
            for name, entry in entries:
                child = self._child(folder, name, entry.stat(follow_symlinks=False))
                if child is not None:
                    node.children[name] = child
                    if child.is_directory:
                        below.append((path + b"/" + name, child))
        finally:
            os.close(descriptor)
        if folder.nodes:
            self._folders.append(folder)
        return below

    def _child(self, folder: _Folder, name: bytes, status: os.stat_result) -> Node | None:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG and status.st_nlink == 1:
            return self._file(folder, name, status)
        path = folder.files.folder + b"/" + name
        if kind == stat.S_IFSOCK:
            self._warnings.append(f"left out, a socket: {shown(path)}")
            return None
        if kind == stat.S_IFDIR:
            return _node(status)
        key = (status.st_dev, status.st_ino)
        node = self._links.get(key)
        if node is None:
            if kind == stat.S_IFREG:
                node = self._file(folder, name, status)
            else:
                node = _node(status)
                node.xattrs = self._attributes.at(path)
                node.target = _target(path) if kind == stat.S_IFLNK else b""
            if status.st_nlink > 1:
                self._links[key] = node
        return node

    def _file(self, folder: _Folder, name: bytes, status: os.stat_result) -> Node:
        node = _node(status)
        if status.st_blocks * 512 < node.size:
            folder.sparse.add(len(folder.nodes))
        folder.files.add(name, status)
        folder.nodes.append(node)
        self._size += node.size
        self._count += 1
        return node


class _Batch:
    """Small files gathered for one task."""

    def __init__(self, packer: Packer, helpers: Helpers) -> None:
        self._packer = packer
        self._helpers = helpers
        self._parts: list[Files] = []
        self._nodes: list[Node] = []
        self._size = 0

    def add(self, folder: _Folder, start: int, stop: int) -> None:
        """Add the files ``[start, stop)`` of *folder*, and start tasks as they fill."""
        for number in range(start, stop):
            node = folder.nodes[number]
            if self._size + node.size > BATCH_BYTES or len(self._nodes) == BATCH_FILES:
                self._part(folder, start, number)
                self.run()
                start = number
            self._nodes.append(node)
            self._size += node.size
        self._part(folder, start, stop)

    def _part(self, folder: _Folder, start: int, stop: int) -> None:
        if start < stop:
            self._parts.append(folder.files.part(start, stop))

    def run(self) -> None:
        """Start a task with what there is."""
        if self._parts:
            task = _Task(self._helpers, self._parts, self._nodes)
            filled = [node for node in self._nodes if node.size]
            self._packer.run(task, filled, self._size)
            self._parts, self._nodes, self._size = [], [], 0


@dataclass(frozen=True, slots=True)
class _Task:
    """Reads small files and fills in their xattrs, in any thread: nobody else knows the nodes."""

    helpers: Helpers
    parts: Sequence[Files]
    nodes: Sequence[Node]

    def __call__(self) -> Packed:
        read = self.helpers.read(self.parts)
        for number, found in read.xattrs.items():
            self.nodes[number].xattrs = found
        return read.packed


def _read_large(packer: Packer, folder: _Folder, number: int, attributes: Attributes) -> None:
    node, files = folder.nodes[number], folder.files.part(number, number + 1)
    path, run, rules = files.path(0), max(RUN, packer.chunk_size), packer.rules
    try:
        descriptor = os.open(path, FILE)
        try:
            node.xattrs = attributes.of(descriptor)
            regions = list(_regions(descriptor, node.size, packer.chunk_size))
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise failed(path, exc) from exc
    for start, stop, data in regions if number in folder.sparse else [(0, node.size, True)]:
        if not data:
            packer.zeros(node, stop - start)
            continue
        for span in steps(range(start, stop), run):
            owners = [node] * len(steps(span, packer.chunk_size))
            packer.run(_Span(files, span, rules), owners, len(span))


@dataclass(frozen=True, slots=True)
class _Span:
    """Reads some whole chunks of a large file."""

    files: Files
    span: range
    rules: Rules

    def __call__(self) -> Packed:
        return read_span(self.files, self.span, self.rules)


def _regions(descriptor: int, size: int, step: int) -> Iterator[tuple[int, int, bool]]:
    """Yield ``[start, stop)`` of a sparse file's parts in whole chunks; data is True, holes not."""
    start = 0
    while start < size:
        data = _seek(descriptor, start, os.SEEK_DATA, size)
        first = data // step * step if data < size else size
        if start < first:
            yield start, first, False
        hole = _seek(descriptor, data, os.SEEK_HOLE, size)
        start = min(-(-hole // step) * step, size)
        if first < start:
            yield first, start, True


def _target(path: bytes) -> bytes:
    return os.readlink(path)  # noqa: PTH115  # pathlib has no bytes


def _seek(descriptor: int, start: int, whence: int, size: int) -> int:
    try:
        return min(os.lseek(descriptor, start, whence), size)
    except OSError:  # ENXIO: nothing but a hole from here to the end
        return size


def _node(status: os.stat_result) -> Node:
    seconds, nsec = divmod(status.st_mtime_ns, 1_000_000_000)
    mode = status.st_mode
    return Node(
        mode=mode,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=seconds,
        mtime_nsec=nsec,
        rdev=status.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0,
        size=status.st_size if stat.S_ISREG(mode) else 0,
    )
