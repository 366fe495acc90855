"""Where a Python finds its modules in a tree, as ``site`` and ``importlib`` look for them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .listed import ReadFile, real, regular
from .tree import Node

_PROGRAM = re.compile(rb"python(?:3(?:\.(\d{1,3}))?)?")
_LIBRARY = re.compile(rb"python3\.(\d{1,3})")
_HEAD = 16
"""Bytes of byte code before the code: PEP 552."""


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter in a tree."""

    prefix: bytes
    """The folder that its ``bin`` is in."""
    minor: int
    """Of version 3."""
    virtual: bytes
    """The prefix of the virtual environment that it is called in; empty: none."""

    @property
    def library(self) -> bytes:
        """Return the folder of the standard library."""
        return posixpath.join(self.prefix, b"lib/python3.%d" % self.minor)

    @property
    def sites(self) -> tuple[bytes, ...]:
        """Return where packages are installed, Debian's places among them."""
        below = b"lib/python3.%d/" % self.minor
        if self.virtual:
            return (posixpath.join(self.virtual, below, b"site-packages"),)
        packages = b"local/" + below + b"dist-packages", b"lib/python3/dist-packages"
        every = (*packages, below + b"dist-packages", below + b"site-packages")
        return tuple(posixpath.join(self.prefix, one) for one in every)


@dataclass(frozen=True, slots=True)
class Module:
    """What the name of a module stands for."""

    name: bytes
    """With its dots."""
    source: Node | None
    """None: a library, byte code alone, or a folder without ``__init__``."""
    file: tuple[Node, bytes] | None
    """What an import reads of it, and its path."""
    folders: tuple[bytes, ...]
    """Where the modules in it are; none: it is no package."""

    @property
    def package(self) -> bytes:
        """Return what a name with one dot in front begins with."""
        return self.name if self.folders else self.name.rpartition(b".")[0]


def python_at(root: Node, path: bytes) -> Python | None:
    """Return the Python that a call of *path* runs; None where that is another program."""
    found = real(root, path)
    match = _PROGRAM.fullmatch(posixpath.basename(found[1])) if found else None
    if found is None or match is None:
        return None
    prefix = posixpath.dirname(posixpath.dirname(found[1]))
    minor = match[1] or _only_minor(root, prefix)
    if minor is None:
        return None
    called = posixpath.dirname(posixpath.dirname(path))
    virtual = regular(root, posixpath.join(called, b"pyvenv.cfg")) is not None
    return Python(prefix, int(minor), called if virtual else b"")


def _only_minor(root: Node, prefix: bytes) -> bytes | None:
    folder = real(root, posixpath.join(prefix, b"lib"))
    names = folder[0].children if folder else ()
    found = [match[1] for name in names if (match := _LIBRARY.fullmatch(name))]
    return found[0] if len(found) == 1 else None


class ModuleFinder:
    """Finds modules in folders, as a Python of that version does."""

    def __init__(self, root: Node, python: Python, read: ReadFile) -> None:
        self._root, self._read = root, read
        tag = b".cpython-3%d" % python.minor
        self._code = tag + b".pyc"
        libraries = real(root, posixpath.join(python.library, b"lib-dynload"))
        names = libraries[0].children if libraries is not None else ()
        own = {name[name.index(tag + b"-") :] for name in names if tag + b"-" in name}
        self._libraries = (*sorted(own), b".abi3.so", b".so")

    def find(self, name: bytes, folders: Sequence[bytes]) -> Module | None:
        """Return the module *name*, the last part of which is looked for in *folders*."""
        last = name.rpartition(b".")[2]
        inside = []
        for folder in folders:
            path = posixpath.join(folder, last)
            below = real(self._root, path)
            if below is not None and below[0].is_directory:
                found = self._module(name, path, b"__init__", (path,))
                if found is not None:
                    return found
                inside.append(path)
            if (found := self._module(name, folder, last, ())) is not None:
                return found
        return Module(name, None, None, tuple(inside)) if inside else None

    def _module(
        self, name: bytes, folder: bytes, stem: bytes, folders: tuple[bytes, ...]
    ) -> Module | None:
        """Return the module whose file in *folder* is called *stem* and something."""
        base = posixpath.join(folder, stem)
        for ending in self._libraries:
            if (node := regular(self._root, base + ending)) is not None:
                return Module(name, None, (node, base + ending), folders)
        if (node := regular(self._root, base + b".py")) is not None:
            path = posixpath.join(folder, b"__pycache__", stem + self._code)
            code = regular(self._root, path)
            if code is not None and self._is_of(code, node):
                return Module(name, node, (code, path), folders)
            return Module(name, node, (node, base + b".py"), folders)
        code = regular(self._root, base + b".pyc")
        return None if code is None else Module(name, None, (code, base + b".pyc"), folders)

    def _is_of(self, code: Node, source: Node) -> bool:
        """Say whether byte code will be taken for that of *source*."""
        head = self._read(code, 0, _HEAD)
        if not head:
            return True  # it lies in another image, and images are seldom half of one Python
        if len(head) < _HEAD or int.from_bytes(head[4:8], "little"):
            return len(head) == _HEAD  # by the source's hash: seldom, and hardly ever not
        told = int.from_bytes(head[8:12], "little"), int.from_bytes(head[12:], "little")
        return told == (source.mtime & 0xFFFF_FFFF, source.size & 0xFFFF_FFFF)


def path_files(root: Node, folder: bytes) -> Iterator[Node]:
    """Yield the files of a folder of packages that say what else is on the path."""
    found = real(root, folder)
    for name in sorted(found[0].children) if found is not None else ():
        if name.endswith(b".pth"):
            node = regular(root, posixpath.join(folder, name))
            if node is not None:
                yield node
