"""Shards: which file of a model a loader opens after which one, as images' own indexes say.

A model of several files has an index beside them, ``….index.json``, that names the file of each
tensor (``{"weight_map": {tensor: file}}``); parts of a GGUF file are counted in their names.
Loaders open them one after the other, in the order of their names. Nothing here is more than a
hint: an index that lies has other files of the image fetched, as far as a feed goes.
"""

from __future__ import annotations

import re
import stat
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise

import msgspec
import trio

from chunkstore import Buffer
from fusefs.vfs import Vfs
from rafs import RafsError

INDEX = b".index.json"

LARGEST = 32 << 20
"""Bytes of an index that is read; one of 100,000 tensors has 10 MiB."""

NAMES = 4096
"""Names of an image that are looked at; one of more is a file system with a model in it."""

_PART = re.compile(rb"(.+)-\d{5}-of-(\d{5}\.gguf)")

Head = Callable[[int, int], Awaitable[Buffer | None]]
"""Returns the first bytes of a file, None where they cannot be had."""


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def names(index: Buffer) -> Sequence[bytes]:
    """Return in order the files that *index* names; none where it is no index."""
    try:
        named = set(msgspec.json.decode(index, type=_Index).weight_map.values())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ()
    return sorted(name.encode() for name in named)


class Shards:
    """The models of a session's images.

    Tasks: of the event loop; ``learn`` awaits, and may be called by several at once.
    """

    def __init__(self, vfs: Vfs, head: Head) -> None:
        """Read indexes by *head*."""
        self._vfs = vfs
        self._head = head
        self._after: dict[int, int] = {}
        self._known: set[int] = set()
        """The images that were looked at, by their root directories."""

    def after(self, node: int) -> int | None:
        """Return the file that is opened after *node*, if there is one and that is known."""
        return self._after.get(node)

    async def learn(self, node: int) -> None:
        """Read the indexes of the image that *node* is in, unless that was done."""
        try:
            root = self._vfs.top(node)
            if root not in self._known:
                self._known.add(root)
                await self._learn(root)
        except RafsError:  # the image has gone, or is damaged: whoever reads it is told
            return

    async def _learn(self, root: int) -> None:
        waiting, left = [root], NAMES
        while waiting and left > 0:
            folder = waiting.pop()
            parts: dict[tuple[bytes, bytes], list[bytes]] = defaultdict(list)
            for name, node, _ in self._vfs.listing(folder, 0):
                left -= 1
                mode, size = self._vfs.attributes(node)[0], self._vfs.attributes(node)[5]
                if stat.S_ISDIR(mode):
                    waiting.append(node)
                elif name.endswith(INDEX) and 0 < size <= LARGEST:
                    found = await self._head(node, size)
                    self._chain(folder, names(found) if found is not None else ())
                elif part := _PART.fullmatch(name):
                    parts[part[1], part[2]].append(name)
            for of in parts.values():
                self._chain(folder, sorted(of))
            await trio.lowlevel.checkpoint()

    def _chain(self, folder: int, found: Sequence[bytes]) -> None:
        nodes = (self._vfs.lookup(folder, name) for name in found if name and b"/" not in name)
        files = (node for node in nodes if node is not None and self._is_file(node))
        self._after.update(pairwise(files))

    def _is_file(self, node: int) -> bool:
        return stat.S_ISREG(self._vfs.attributes(node)[0])
