"""Small files, many at a time: found, read and packed by whoever is free, thread or process.

``Files`` and ``Read`` are plain values, so that they can go to another process and come back.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from chunkstore import Buffer
from rafs.chunking import steps
from rafs.errors import BadSource
from rafs.packing import Packed, Rules, pack

from .xattrs import Attributes, Found

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _numbers() -> array[int]:
    return array("Q")


@dataclass(slots=True)
class Files:
    """Some regular files of one directory, sorted by name: item *i* of each list is file *i*."""

    folder: bytes
    names: list[bytes] = field(default_factory=list)
    sizes: array[int] = field(default_factory=_numbers)
    inodes: array[int] = field(default_factory=_numbers)
    ctimes: array[int] = field(default_factory=_numbers)
    """In nanoseconds, of the 64 bits that hold it with its sign."""

    def add(self, name: bytes, status: os.stat_result) -> None:
        """Add the file that has *status*."""
        self.names.append(name)
        self.sizes.append(status.st_size)
        self.inodes.append(status.st_ino)
        self.ctimes.append(status.st_ctime_ns & _ALL)

    def part(self, start: int, stop: int) -> Files:
        """Return the files ``[start, stop)``."""
        span = slice(start, stop)
        return Files(
            self.folder, self.names[span], self.sizes[span], self.inodes[span], self.ctimes[span]
        )

    def path(self, number: int) -> bytes:
        """Return the path of one."""
        return self.folder + b"/" + self.names[number]

    def check(self, number: int, descriptor: int) -> None:
        """Raise BadSource if the open file is not, or no longer, the one that was found."""
        status = os.fstat(descriptor)
        if status.st_ctime_ns & _ALL != self.ctimes[number] or status.st_ino != self.inodes[number]:
            raise self.changed(number)

    def changed(self, number: int) -> BadSource:
        """Return the error that names the file."""
        return BadSource(f"{shown(self.path(number))} changed while the image was built")


@dataclass(slots=True)
class Read:
    """What came of reading some files."""

    packed: Packed
    """Of those that are not empty, a chunk each."""
    xattrs: dict[int, Found]
    """By the file's number, of those that have some."""


def read_files(parts: Sequence[Files], rules: Rules, attributes: Attributes) -> Read:
    """Read the files of *parts*, none of more than a chunk; raises BadSource, naming one."""
    xattrs: dict[int, Found] = {}
    return Read(pack(_pieces(parts, attributes, xattrs), rules), xattrs)


def _pieces(
    parts: Sequence[Files], attributes: Attributes, xattrs: dict[int, Found]
) -> Iterator[Buffer]:
    """Yield the data of files that have some, and note in *xattrs* who has those.

    Each is packed before the next one is read, while the processor has it at hand.
    """
    first = 0
    for files in parts:
        descriptors: list[int] = []
        try:
            _open_all(files, descriptors)
            for number, descriptor in enumerate(descriptors):
                try:
                    data = os.read(descriptor, files.sizes[number] + 1)
                    if found := attributes.of(descriptor):
                        xattrs[first + number] = found
                    files.check(number, descriptor)
                except OSError as exc:
                    raise failed(files.path(number), exc) from exc
                if len(data) != files.sizes[number]:
                    raise files.changed(number)
                if data:
                    yield data
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        first += len(files.names)


def read_span(files: Files, span: range, rules: Rules) -> Packed:
    """Read and pack the bytes *span* of the one file in *files*; raises BadSource."""
    path = files.path(0)
    try:
        descriptor = os.open(path, FILE)
        try:
            pieces = [
                os.pread(descriptor, len(part), part.start)
                for part in steps(span, rules.chunk_size)
            ]
            files.check(0, descriptor)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise failed(path, exc) from exc
    if sum(map(len, pieces)) != len(span):
        raise files.changed(0)
    return pack(pieces, rules)


def failed(path: bytes, exc: OSError) -> BadSource:
    """Return the error that names what *exc* happened to."""
    return BadSource(f"{shown(path)}: {exc.strerror}")


def shown(path: bytes) -> str:
    """Return *path* as people read it."""
    return path.decode("utf-8", "backslashreplace")


def _open_all(files: Files, descriptors: list[int]) -> None:
    """Open *files*, and have the disk begin with all of them at once.

    On a tree that no cache knows this took a third off a whole build.
    """
    path = files.folder
    try:
        folder = os.open(path, FOLDER)
        try:
            for name in files.names:
                path = name
                descriptor = os.open(name, FILE, dir_fd=folder)
                descriptors.append(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(folder)
    except OSError as exc:
        named = path if path is files.folder else files.folder + b"/" + path
        raise failed(named, exc) from exc


_ALL = (1 << 64) - 1
