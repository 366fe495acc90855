"""Libraries: what the loader opens for a program, told by ELF headers."""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Iterator
from functools import cached_property, partial

from .elf import Needs, needs
from .listed import ReadFile, regular, resolve
from .tree import Node

_CACHE, _CONFIG = b"/etc/ld.so.cache", b"/etc/ld.so.conf"
_FOLDERS = (b"/lib64", b"/usr/lib64", b"/lib", b"/usr/lib", b"/usr/local/lib")

_FILES = 4096
"""That are looked at, at most."""

_SMALL = 64 << 10
"""Bytes of a list of folders that are read."""


class Libraries:
    """Those of one tree; each is looked at once."""

    def __init__(self, root: Node, read: ReadFile) -> None:
        self._root, self._read = root, read
        self._seen: set[Node] = set()

    def opened(self, node: Node, path: bytes) -> Iterator[Node]:
        """Yield what the loader opens for the file at *path*, itself first, in its order."""
        waiting = deque([(node, path)])
        yield node
        while waiting and len(self._seen) < _FILES:
            one, place = waiting.popleft()
            if one in self._seen:
                continue
            self._seen.add(one)
            needed = needs(partial(self._read, one))
            if needed is None:
                continue
            if needed.interpreter or one is node:
                yield from self._files(needed.interpreter, _CACHE)
            for found, where in self._found(needed, posixpath.dirname(place)):
                yield found
                waiting.append((found, where))

    def _found(self, needed: Needs, origin: bytes) -> Iterator[tuple[Node, bytes]]:
        own = [
            path.replace(b"${ORIGIN}", origin).replace(b"$ORIGIN", origin) for path in needed.paths
        ]
        for name in needed.libraries:
            for folder in (b"",) if b"/" in name else (*own, *self._folders):
                path = posixpath.join(folder, name)
                if (node := regular(self._root, path)) is not None:
                    yield node, path
                    break

    @cached_property
    def _folders(self) -> tuple[bytes, ...]:
        return (*self._configured(), *_FOLDERS)

    def _configured(self) -> Iterator[bytes]:
        """Yield the folders that the loader's configuration names."""
        for line in self._lines(_CONFIG):
            if not line.startswith(b"include "):
                yield line
                continue
            pattern = line.removeprefix(b"include ").strip()
            folder = posixpath.join(b"/etc", posixpath.dirname(pattern))
            node = resolve(self._root, folder)
            for name in sorted(node.children) if node is not None else ():
                if name.endswith(posixpath.basename(pattern).lstrip(b"*")):
                    yield from self._lines(posixpath.join(folder, name))

    def _lines(self, path: bytes) -> list[bytes]:
        text = b"".join(self._read(node, 0, _SMALL) for node in self._files(path))
        lines = (line.partition(b"#")[0].strip() for line in text.splitlines())
        return [line for line in lines if line]

    def _files(self, *paths: bytes) -> Iterator[Node]:
        for path in paths:
            node = regular(self._root, path) if path else None
            if node is not None:
                yield node
