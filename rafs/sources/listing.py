"""Files that somebody lists, with a way to read each once: a model hub's, a model artifact's."""

from __future__ import annotations

import stat
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from chunkstore import Buffer
from rafs.errors import BadSource
from rafs.packer import Packer
from rafs.tarformat import shown
from rafs.tree import Node

from .layer import path_of
from .pieces import Pieces
from .source import Harvest, Json
from .streams import Stream, read_ahead


@dataclass(frozen=True, slots=True)
class Listed:
    """A file, before it is read."""

    path: bytes
    size: int
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    mtime: int = 0
    """Seconds since 1970."""


Blocks = Callable[[Listed], Iterable[Buffer]]
"""Yields a file's bytes, and raises in the end if they are not what they should be."""


class ListingSource:
    """The tree of *files*; folders are made as their paths want them."""

    def __init__(
        self, what: str, files: Sequence[Listed], blocks: Blocks, config: Json | None = None
    ) -> None:
        """Call it *what* in errors."""
        self.place: Path | None = None
        self._what = what
        self._files = sorted(files, key=lambda file: file.path)
        self._blocks = blocks
        self._config = config
        self.xattrs: dict[bytes, bytes] = {}
        """Of the root folder."""

    def prepare(self) -> int:
        """Return the bytes of all files."""
        return sum(file.size for file in self._files)

    def read(self, packer: Packer) -> Harvest:
        """Pack every file in the order of their paths; raises BadSource, ChunkstoreError."""
        root = folder()
        root.xattrs.update(self.xattrs)
        pieces = Pieces(packer)
        with closing(self._all_blocks()) as blocks, read_ahead(blocks) as ready:
            stream = Stream(ready, self._what)
            for file in self._files:
                node = put(root, file, self._what)
                pieces.add_all(node, _chunks(stream, file.size, packer.chunk_size))
            stream.drain()  # the last file's check comes behind its last byte
        pieces.flush()
        return Harvest(root, config=self._config)

    def _all_blocks(self) -> Generator[Buffer, None, None]:
        for file in self._files:
            size = 0
            for block in self._blocks(file):
                size += len(block)
                yield block
            if size != file.size:
                name = shown(file.path)
                raise BadSource(f"{self._what}: {name} has {size} bytes, not {file.size}")


def _chunks(stream: Stream, size: int, chunk_size: int) -> Iterator[Buffer]:
    for start in range(0, size, chunk_size):
        yield stream.take(min(chunk_size, size - start))


def folder() -> Node:
    """Return a new folder."""
    return Node(stat.S_IFDIR | 0o755)


def put(root: Node, file: Listed, what: str) -> Node:
    """Put *file*, still without data, where it belongs; raises BadSource where it cannot be."""
    *above, name = path_of(file.path, what) or (b"",)
    place = root
    for part in above:
        place = place.children.setdefault(part, folder())
        if not place.is_directory:
            raise BadSource(f"{what}: {shown(file.path)} is inside a file")
    if not name or name in place.children:
        raise BadSource(f"{what}: {shown(file.path)} is there twice, or is a folder")
    node = Node(
        stat.S_IFREG | file.mode,
        uid=file.owner[0],
        gid=file.owner[1],
        mtime=file.mtime,
        size=file.size,
    )
    place.children[name] = node
    return node
