"""Bareness: whether no file of the images has extended attributes.

``ls -l`` asks every file for its ACL, a request of the kernel each, unless it was told once that
the file system knows no such thing. To say so takes a look at every inode, so that is done beside
the readers when the first such question comes, a few at a time.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Sequence

import trio

from rafs import RafsError

from .tree import Tree

logger = logging.getLogger(__name__)

_SLICE = 50
"""Inodes between two turns of the readers, about 0.2 ms."""


class Bareness:
    """Finds out, once it is asked."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self._trees = trees
        self._asked = trio.Event()
        self._bare = False

    def __call__(self) -> bool:
        """Say whether it is certain by now."""
        self._asked.set()
        return self._bare

    async def run(self) -> None:
        """Look when the first question has come."""
        await self._asked.wait()
        try:
            for tree in self._trees:
                if await _has_xattrs(tree):
                    return
        except RafsError as exc:
            logger.info("not every inode can be read: %s", exc)
            return
        self._bare = True


async def _has_xattrs(tree: Tree) -> bool:
    pending, seen, count = [tree.root], {tree.root}, 0
    if tree.has_xattrs(tree.root):
        return True
    while pending:
        for _, nid, _ in tree.scan(pending.pop(), 0):
            count += 1
            if count % _SLICE == 0:
                await trio.lowlevel.checkpoint()
            if tree.has_xattrs(nid):
                return True
            if nid not in seen and stat.S_ISDIR(tree.attributes(nid)[0]):
                seen.add(nid)
                pending.append(nid)
    return False
