"""What a container reads at every start, told by its files alone: nothing of them is run.

It is the program that the image's config names, the interpreter of a script, the loader, the list
of libraries, and those that programs and libraries name, in the order in which a loader opens them.
"""

from __future__ import annotations

import posixpath
import stat
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from .elf import Needs, needs
from .listed import resolve
from .tree import Node

ReadFile = Callable[[Node, int, int], bytes]
"""Returns so many bytes of a file from an offset on."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What container runtimes look programs up in, where the image does not say."""

_CACHE, _CONFIG = b"/etc/ld.so.cache", b"/etc/ld.so.conf"
_FOLDERS = (b"/lib64", b"/usr/lib64", b"/lib", b"/usr/lib", b"/usr/local/lib")

_FILES = 512
"""That are listed at most."""

_LARGE = 64 << 20
"""Bytes of a file from which on it is not listed: a start reads but parts of it."""

_SCRIPTS = 4
"""Scripts that interpret one another."""

_LINE = 256
"""Bytes of a script's first line that count: Linux' own limit."""

_SMALL = 64 << 10
"""Bytes of a list of folders that are read."""


def files_of_start(root: Node, config: Mapping[str, object], read: ReadFile) -> list[Node]:
    """Return the files that an image's start reads for sure; none where *config* names no program.

    Raises what *read* does.
    """
    inner = config.get("config")
    inner = inner if isinstance(inner, dict) else {}
    words = [*_words(inner.get("Entrypoint")), *_words(inner.get("Cmd"))]
    if not words:
        return []
    where = inner.get("WorkingDir")
    folder = where if isinstance(where, str) and where.startswith("/") else "/"
    settings = dict(word.partition("=")[::2] for word in _words(inner.get("Env")))
    search = [path.encode() for path in (settings.get("PATH") or _PATH).split(":")]
    start = _Start(root, read, folder.encode(), search)
    start.program(words[0].encode(), _SCRIPTS)
    return [node for node in start.found if node.size < _LARGE]


def _words(value: object) -> list[str]:
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


class _Start:
    def __init__(self, root: Node, read: ReadFile, folder: bytes, search: Sequence[bytes]) -> None:
        self.found: dict[Node, None] = {}
        self._root = root
        self._read = read
        self._folder = folder
        self._search = search

    def program(self, name: bytes, scripts: int) -> None:
        """List a program and what it needs."""
        path = next(self._paths(name), None)
        node = None if path is None else self._file(path)
        if node is None or path is None:
            return
        self.found[node] = None
        line = self._read(node, 0, _LINE)
        if line.startswith(b"#!") and scripts:
            words = line[2:].splitlines()[0].split() if line[2:].strip() else []
            for word in words[:1]:
                self.program(word, scripts - 1)
            if words and posixpath.basename(words[0]) == b"env":
                called = next((one for one in words[1:] if not one.startswith(b"-")), b"")
                self.program(called, scripts - 1)
        else:
            self._binary(node, path)

    def _binary(self, node: Node, path: bytes) -> None:
        """List what a program's loader opens."""
        waiting, seen = deque([(node, path)]), {node}
        folders: list[bytes] | None = None
        while waiting and len(self.found) < _FILES:
            one, place = waiting.popleft()
            needed = needs(partial(self._read, one))
            if needed is None:
                continue
            if folders is None:
                self._add(needed.interpreter)
                self._add(_CACHE)
                folders = [*self._configured(), *_FOLDERS]
            for found, where in self._libraries(needed, posixpath.dirname(place), folders):
                if found not in seen:
                    seen.add(found)
                    self.found[found] = None
                    waiting.append((found, where))

    def _libraries(
        self, needed: Needs, origin: bytes, folders: Sequence[bytes]
    ) -> Iterator[tuple[Node, bytes]]:
        own = [
            path.replace(b"${ORIGIN}", origin).replace(b"$ORIGIN", origin) for path in needed.paths
        ]
        for name in needed.libraries:
            for folder in (b"",) if b"/" in name else (*own, *folders):
                path = posixpath.join(folder, name)
                if (node := self._file(path)) is not None:
                    yield node, path
                    break

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
        node = self._file(path)
        text = b"" if node is None else self._read(node, 0, _SMALL)
        lines = (line.partition(b"#")[0].strip() for line in text.splitlines())
        return [line for line in lines if line]

    def _add(self, path: bytes) -> None:
        node = self._file(path) if path else None
        if node is not None:
            self.found[node] = None

    def _paths(self, name: bytes) -> Iterator[bytes]:
        """Yield where a program of that name is, the first one first."""
        if not name:
            return
        folders = (self._folder,) if b"/" in name else self._search
        for folder in folders:
            path = posixpath.join(folder, name)
            if self._file(path) is not None:
                yield path

    def _file(self, path: bytes) -> Node | None:
        node = resolve(self._root, path)
        return node if node is not None and stat.S_ISREG(node.mode) else None
