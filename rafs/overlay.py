"""Overlay: layers of a container image put one on the other, from the top down.

A layer says what it adds, replaces, and hides of the layers below it. Laying them from the top
down means that, when a file of a lower layer comes along, everything that could hide it is known:
its data is packed or passed over at once, and no deleted byte is ever stored.

``Folder`` is a directory as some layers see it. What it says of a name is one of: a ``Node``, a
file that replaces whatever is below; a ``Folder``, a directory that merges with one below; None,
a whiteout: there is nothing, whatever is below; or nothing, so that what is below shows. It is
*opaque* where nothing from below shows in it, and *fresh* where even its attributes do not come
from below: something else, or nothing, was there in between. ``node`` holds the attributes, None
as long as only something inside was mentioned.

Paths are tuples of names. No symlink is followed: a layer that mentions a file in what a lower
layer has as a symlink to a directory replaces the symlink by a directory.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence

from .tree import Node

Path = tuple[bytes, ...]


class Folder:
    """A directory as some layers, from the top on, see it."""

    __slots__ = ("fresh", "names", "node", "opaque")

    def __init__(self) -> None:
        self.node: Node | None = None
        self.opaque = False
        self.fresh = False
        self.names: dict[bytes, Node | Folder | None] = {}


_ABSENT = Folder()
"""Stands for a name that nothing is said of."""


class Layer:
    """What one layer says. Later words about a path replace earlier ones.

    What it hides is hidden before what it has is put there, in whatever order the words come: what
    it has is a layer over one that only hides.
    """

    def __init__(self) -> None:
        self.root = Folder()
        """What it has; after ``close`` also what it hides."""
        self._hidden = Folder()

    def put(self, path: Path, node: Node) -> None:
        """Put a file that is no directory at *path*."""
        _folder(self.root, path[:-1]).names[path[-1]] = node

    def put_directory(self, path: Path, node: Node) -> None:
        """Put a directory at *path*, or give the one that is there *node*'s attributes."""
        _folder(self.root, path).node = node

    def whiteout(self, path: Path) -> None:
        """Hide what lower layers have at *path*."""
        _folder(self._hidden, path[:-1]).names[path[-1]] = None

    def opaque(self, path: Path) -> None:
        """Hide what lower layers have in the directory at *path*."""
        folder = _folder(self._hidden, path)
        folder.opaque = True
        folder.names.clear()

    def find(self, path: Path) -> Node | Folder | None:
        """Return what this layer says of *path*: None, it is hidden; an absent Folder, nothing."""
        return _find(self.root, path)

    def close(self) -> None:
        """Take it that the layer has said everything."""
        lay(self.root, self._hidden)


def _folder(folder: Folder, path: Path) -> Folder:
    """Return the directory at *path* below *folder*, made where it is not."""
    for name in path:
        here = folder.names.get(name, _ABSENT)
        if here is _ABSENT or not isinstance(here, Folder):
            below = Folder()
            # What stood here in this layer, file or whiteout, hides what lower layers have.
            below.fresh = here is not _ABSENT
            folder.names[name] = here = below
        folder = here
    return folder


def says_nothing(found: Node | Folder | None) -> bool:
    """Tell a name that nothing is said of from one that is hidden or there."""
    return found is _ABSENT


def hides(upper: Folder, path: Path) -> bool:
    """Say whether a file at *path* in a layer below *upper* cannot be seen."""
    return not says_nothing(_find(upper, path))


def lay(upper: Folder, lower: Folder) -> None:
    """Put *lower*'s layer under *upper*, which becomes what both say together."""
    pending = [(upper, lower)]
    while pending:
        above, below = pending.pop()
        if not above.fresh:
            above.node = above.node or below.node
            if not above.opaque:
                pending.extend(_lay_names(above, below))
        above.opaque = above.opaque or below.opaque
        above.fresh = above.fresh or below.fresh


def _lay_names(above: Folder, below: Folder) -> Iterator[tuple[Folder, Folder]]:
    for name, low in below.names.items():
        high = above.names.get(name, _ABSENT)
        if high is _ABSENT:
            above.names[name] = low
        elif isinstance(high, Folder):
            if isinstance(low, Folder):
                yield high, low
            else:
                high.fresh = True


def tree(root: Folder, aliases: dict[Node, Node]) -> Node:
    """Return the tree that shows, with each node in *aliases* replaced by what it stands for."""
    top = _attributes(root)
    pending = [(root, top)]
    while pending:
        folder, node = pending.pop()
        for name, here in folder.names.items():
            if isinstance(here, Folder):
                child = node.children[name] = _attributes(here)
                pending.append((here, child))
            elif here is not None:
                while here in aliases:
                    here = aliases[here]
                node.children[name] = here
    return top


def _attributes(folder: Folder) -> Node:
    # A directory that no layer lists gets what tools give it that must make one.
    return folder.node or Node(stat.S_IFDIR | 0o755)


def _find(folder: Folder, path: Sequence[bytes]) -> Node | Folder | None:
    here: Node | Folder | None = folder
    for name in path:
        if not isinstance(here, Folder):
            return None
        below = here.names.get(name, _ABSENT)
        if below is _ABSENT:
            return None if here.opaque or here.fresh else _ABSENT
        here = below
    return here
