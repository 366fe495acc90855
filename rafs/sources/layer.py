"""LayerReader: from an archive's members to a layer, their data packed on the way.

Layers come from the top one down, so whether a file shows is known before its data goes by. The
data of a file that does not show waits in a scratch file until its layer has ended, because a
hard link to it may come that does show; then it is forgotten.

A hard link to a file that its layer does not have yet is kept open: it stands for what lower
layers have there, as its own layer sees them. In a single archive it may also point forward.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from chunkstore import Buffer
from rafs import overlay
from rafs.errors import BadSource
from rafs.overlay import Folder, Layer
from rafs.packer import Packer
from rafs.tarformat import Member, Type, shown
from rafs.tree import Node

from .archive import Archive, file_chunks
from .pieces import Pieces
from .xattrs import is_storable, left_out

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_BOOKKEEPING = b".wh..wh."
"""What aufs, where whiteouts come from, kept for itself."""

_MAX_NAME = 255
_MAX_DEVICE = 1 << 12, 1 << 20
_MAX_TIME = 1 << 63


@dataclass(slots=True, eq=False)
class _Link:
    """A hard link whose target was not there yet."""

    name: bytes
    target: overlay.Path
    node: Node
    """What stands in the tree for it meanwhile."""
    shows: bool


@dataclass(slots=True)
class Reading:
    """What is known across all layers of a source."""

    packer: Packer
    whiteouts: bool
    """Whether names that begin with ``.wh.`` mean what they mean in container layers."""
    upper: Folder = field(default_factory=Folder)
    """The layers that were read."""
    warnings: dict[str, None] = field(default_factory=dict)
    links: list[_Link] = field(default_factory=list)
    aliases: dict[Node, Node] = field(default_factory=dict)
    """What nodes that stood in for links turned out to be."""

    def add(self, archive: Archive) -> None:
        """Read a layer that lies below those read before; raises BadSource."""
        with _LayerReader(self) as reader:
            for member in archive:
                reader.add(archive, member)
            reader.finish()
        overlay.lay(self.upper, reader.layer.root)

    def tree(self) -> Node:
        """Return the tree that shows; raises BadSource for a link to nothing."""
        for link in self.links:
            if link.shows:
                raise _dangling(link)
        return overlay.tree(self.upper, self.aliases)


class _LayerReader:
    """Reads one layer."""

    def __init__(self, reading: Reading) -> None:
        self.layer = Layer()
        self._reading = reading
        self._links: list[_Link] = []
        self._pieces = Pieces(reading.packer)
        self._hidden = _Hidden(reading.packer.folder)

    def add(self, archive: Archive, member: Member) -> None:
        """Take one member and its data."""
        path = path_of(member.name, archive.stream.what)
        if self._reading.whiteouts and path and path[-1].startswith(WHITEOUT):
            self._whiteout(path)
        elif member.type is Type.DIRECTORY:
            self.layer.put_directory(path, self._node(member, stat.S_IFDIR))
        elif not path:
            raise BadSource(f"{archive.stream.what}: a root that is no directory")
        elif member.type is Type.LINK:
            self._link(path, member, archive)
        elif member.type is Type.FILE:
            self._file(path, member, archive)
        elif member.type is Type.OTHER:
            self._warn(f"left out, no file: {shown(member.name)}")
        else:
            self.layer.put(path, self._node(member, _KINDS[member.type]))

    def finish(self) -> None:
        """Find what links point to, and pack what was hidden and shows through them."""
        self.layer.close()
        reading = self._reading
        reading.links = [link for link in reading.links if not self._is_settled(link)]
        for link in self._links:
            hidden = self.layer.find(link.target) is None
            if hidden and link.shows:
                raise _dangling(link)
            if not hidden and (reading.whiteouts or not self._is_settled(link)):
                reading.links.append(link)
        for node, pieces in self._hidden.wanted():
            self._pieces.add_all(node, pieces)
        self._pieces.flush()

    def _file(self, path: overlay.Path, member: Member, archive: Archive) -> None:
        node = self._node(member, stat.S_IFREG)
        node.size = member.size
        self.layer.put(path, node)
        chunks = file_chunks(archive, member, self._reading.packer.chunk_size)
        if overlay.hides(self._reading.upper, path):
            self._hidden.add(node, chunks)
        else:
            self._pieces.add_all(node, chunks)

    def _link(self, path: overlay.Path, member: Member, archive: Archive) -> None:
        target = path_of(member.target, archive.stream.what)
        shows = not overlay.hides(self._reading.upper, path)
        found = self.layer.find(target)
        if isinstance(found, Node):
            self.layer.put(path, found)
            if shows:
                self._hidden.want(found)
                self._show(found)
            return
        if not target or (isinstance(found, Folder) and not overlay.says_nothing(found)):
            raise BadSource(
                f"{archive.stream.what}: {shown(member.name)} is a hard link to a directory"
            )
        stand_in = Node(stat.S_IFREG)
        self.layer.put(path, stand_in)
        self._links.append(_Link(member.name, target, stand_in, shows))

    def _is_settled(self, link: _Link) -> bool:
        """Look for what *link* points to in this layer; raises BadSource where it is hidden."""
        found = self.layer.find(link.target)
        if overlay.says_nothing(found):
            return False
        if isinstance(found, Node):
            self._resolve(link, found)
        elif link.shows:
            raise _dangling(link)
        return True

    def _resolve(self, link: _Link, found: Node) -> None:
        aliases = self._reading.aliases
        aliases[link.node] = found
        while found in aliases:
            found = aliases[found]
            if found is link.node:
                raise _dangling(link)
        if link.shows:
            self._hidden.want(found)
            self._show(found)

    def _show(self, node: Node) -> None:
        """Note that what *node* stands in for shows, if it does for something."""
        for link in (*self._reading.links, *self._links):
            if link.node is node:
                link.shows = True

    def _whiteout(self, path: overlay.Path) -> None:
        name = path[-1]
        if name == OPAQUE:
            self.layer.opaque(path[:-1])
        elif not name.startswith(_BOOKKEEPING):
            hidden = name[len(WHITEOUT) :]
            if hidden in (b"", b".", b".."):
                raise BadSource(f"a whiteout of nothing: {shown(b'/'.join(path))}")
            self.layer.whiteout((*path[:-1], hidden))

    def _node(self, member: Member, kind: int) -> Node:
        major, minor = member.device
        if major >= _MAX_DEVICE[0] or minor >= _MAX_DEVICE[1]:
            raise BadSource(f"{shown(member.name)}: device {major}, {minor} has no place in Linux")
        if not -_MAX_TIME <= member.mtime < _MAX_TIME:
            raise BadSource(f"{shown(member.name)}: a time of {member.mtime} seconds")
        if kind == stat.S_IFLNK and not member.target:
            raise BadSource(f"{shown(member.name)}: a symlink to nowhere")
        xattrs = dict(member.xattrs)
        for name in [name for name in xattrs if not is_storable(name)]:
            del xattrs[name]
            self._warn(left_out(name))
        return Node(
            mode=kind | (0o777 if kind == stat.S_IFLNK else member.mode),
            uid=member.uid,
            gid=member.gid,
            mtime=member.mtime,
            mtime_nsec=member.mtime_nsec,
            rdev=os.makedev(major, minor),
            target=member.target if kind == stat.S_IFLNK else b"",
            xattrs=xattrs,
        )

    def _warn(self, word: str) -> None:
        self._reading.warnings[word] = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._hidden.close()


class _Hidden:
    """Data of files that do not show, in a scratch file that has no name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._file: BinaryIO | None = None
        self._places: dict[Node, list[tuple[int, int] | int]] = {}
        self._wanted: dict[Node, None] = {}

    def add(self, node: Node, pieces: Iterator[Buffer | int]) -> None:
        """Keep the data of *node*."""
        if self._file is None:
            scratch = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  # closed by close
            self._file = self._stack.enter_context(scratch)
        places = self._places[node] = []
        for piece in pieces:
            if isinstance(piece, int):
                places.append(piece)
            else:
                places.append((self._file.tell(), len(piece)))
                self._file.write(piece)

    def want(self, node: Node) -> None:
        """Have *node*'s data given back in the end, if it is here."""
        if node in self._places:
            self._wanted[node] = None

    def wanted(self) -> Iterator[tuple[Node, Iterator[Buffer | int]]]:
        """Yield what was wanted, with its data."""
        for node in self._wanted:
            yield node, self._read(self._places[node])

    def _read(self, places: list[tuple[int, int] | int]) -> Iterator[Buffer | int]:
        for place in places:
            if isinstance(place, int):
                yield place
            elif self._file is not None:
                self._file.seek(place[0])
                yield self._file.read(place[1])

    def close(self) -> None:
        """Forget everything."""
        self._stack.close()


def path_of(name: bytes, what: str) -> overlay.Path:
    """Return the names that lead to a member; raises BadSource where they lead astray."""
    path = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in path or b"\0" in name or any(len(part) > _MAX_NAME for part in path):
        raise BadSource(f"{what}: {shown(name)} is no path inside an image")
    return path


def _dangling(link: _Link) -> BadSource:
    target = shown(b"/".join(link.target))
    return BadSource(f"{shown(link.name)} is a hard link to {target}, which is not there")


_KINDS = {
    Type.SYMLINK: stat.S_IFLNK,
    Type.CHARACTER: stat.S_IFCHR,
    Type.BLOCK: stat.S_IFBLK,
    Type.FIFO: stat.S_IFIFO,
}
