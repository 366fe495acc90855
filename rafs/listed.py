"""The files that a start needs, by their paths: found in the tree, and taken out of its order.

Symlinks are followed as in a mounted image, its root being theirs: lists come from programs that
were watched, and those say ``/lib/libc.so.6`` where ``lib`` is a symlink.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence

from .tree import Node

ReadFile = Callable[[Node, int, int], bytes]
"""Returns so many bytes of a file from an offset on."""

Found = Callable[[Node, bytes], None]
"""Told of each file that will be read, in order, with its path."""

_MAX_LINKS = 40
"""Symlinks on one path; what Linux follows."""

_NAMED = 3
"""Missing paths that are told by name."""


def find(root: Node, paths: Sequence[bytes]) -> tuple[list[Node], list[str]]:
    """Return the nodes at *paths*, each once, and a line about those that are not there."""
    found: dict[Node, None] = {}
    missing: list[bytes] = []
    for path in paths:
        node = resolve(root, path)
        if node is None:
            missing.append(path)
        else:
            found[node] = None
    return list(found), [_told(missing)] if missing else []


def files(nodes: Sequence[Node]) -> Iterator[Node]:
    """Yield the regular files among *nodes*, and those below the directories among them."""
    for node in nodes:
        if stat.S_ISREG(node.mode):
            yield node
        for _, below in node.walk():
            if stat.S_ISREG(below.mode):
                yield below


def resolve(root: Node, path: bytes) -> Node | None:
    """Return what *path* leads to, None where that is nothing."""
    found = real(root, path)
    return None if found is None else found[0]


def regular(root: Node, path: bytes) -> Node | None:
    """Return the regular file that *path* leads to."""
    node = resolve(root, path)
    return node if node is not None and stat.S_ISREG(node.mode) else None


def real(root: Node, path: bytes) -> tuple[Node, bytes] | None:
    """Return what *path* leads to, and its path without symlinks; None where that is nothing."""
    above, left, links = [(root, b"/")], _names(path), 0
    while left:
        name = left.pop()
        if name == b"..":
            above = above[:-1] or [(root, b"/")]
            continue
        node = above[-1][0].children.get(name)
        if node is None:
            return None
        if stat.S_ISLNK(node.mode):
            links += 1
            if links > _MAX_LINKS:
                return None
            if node.target.startswith(b"/"):
                above = [(root, b"/")]
            left += _names(node.target)
        else:
            above.append((node, posixpath.join(above[-1][1], name)))
    return above[-1]


def _names(path: bytes) -> list[bytes]:
    """Return the names in *path*, the last one first."""
    return [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]


def _told(missing: Sequence[bytes]) -> str:
    named = ", ".join(os.fsdecode(path) for path in missing[:_NAMED])
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return f"not in the image, so not fetched ahead: {named}{more}"
