"""What a program in Python reads before it does anything: the modules that its imports lead to.

Sources are looked at, nothing is run. Listed is what the interpreter will open: byte code where
there is some that fits, else the source; for libraries, themselves and what they need.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .imports import Import, imports
from .listed import Found, ReadFile, real, regular
from .pythonpath import Module, ModuleFinder, Python, path_files
from .texts import Texts, as_bytes
from .tree import Node

_NAMES = 16384
"""That are looked for at most."""

_FOLDERS = 64
"""On the path at most."""

_NAME = 255
"""Bytes of a module's name."""

_ALWAYS = (b"encodings", b"encodings.aliases", b"encodings.utf_8")
"""What every start imports first."""

_FIRST = (b"codecs", b"io", b"abc", b"site", b"os")

_FROZEN = frozenset(
    b"abc codecs genericpath importlib._bootstrap importlib._bootstrap_external importlib.machinery"
    b" importlib.util io ntpath os posixpath runpy site stat zipimport _collections_abc"
    b" _sitebuiltins".split()
)
"""What 3.11 and later have in the interpreter itself: ``Python/frozen.c``."""

_FREEZES = 11

_LOCALES = tuple(b"/usr/lib/locale/%s/LC_CTYPE" % name for name in (b"C.utf8", b"C.UTF-8"))
"""What is read of the locale that C stands for since 3.7: PEP 538."""

_PLAIN = frozenset({"", "C", "POSIX", "C.UTF-8", "C.utf8"})
_WITH_VALUE = b"WXQ"
"""Options whose value may be the next word."""


class PythonStart:
    """One start of an interpreter."""

    def __init__(self, root: Node, python: Python, read: ReadFile, found: Found) -> None:
        self._root, self._texts, self._found = root, Texts(read), found
        self._python = python
        self._finder = ModuleFinder(root, python, read)
        self._modules: dict[bytes, Module | None] = {}
        self._path: list[bytes] = []

    def follow(self, words: Sequence[bytes], folder: bytes, settings: Mapping[str, str]) -> None:
        """Tell what a call with *words* in *folder* reads; *settings* are its environment."""
        python = self._python
        if all(settings.get(name, "") in _PLAIN for name in ("LC_ALL", "LC_CTYPE", "LANG")):
            for path in _LOCALES:
                self._tell(path)
        inner = as_bytes(settings.get("PYTHONPATH", "")).split(b":")
        self._path = [posixpath.join(folder, one) for one in inner if one]
        self._path += [python.library, posixpath.join(python.library, b"lib-dynload")]
        self._run(map(Import, _ALWAYS if python.minor >= _FREEZES else (*_ALWAYS, *_FIRST)))
        if python.virtual:
            self._tell(posixpath.join(python.virtual, b"pyvenv.cfg"))
        for site in python.sites:
            self._site(site)
        self._run(map(Import, (b"sitecustomize", b"usercustomize")))
        kind, value = _called(words)
        if kind == b"c":
            self._path.insert(0, folder)
            self._run(imports(value, main=True))
        elif kind == b"m":
            self._path.insert(0, folder)
            self._run(map(Import, (b"runpy", b"pkgutil")[: 1 + (python.minor < _FREEZES)]))
            self._main_module(value)
        elif value:
            self._script(posixpath.join(folder, value))

    def _site(self, folder: bytes) -> None:
        """Take a folder of packages up, and what it adds to the path."""
        if real(self._root, folder) is None:
            return
        self._path.append(folder)
        for node in path_files(self._root, folder):
            self._found(node, folder)
            text = self._texts.of(node)
            for line in text.splitlines():
                if line.startswith((b"import ", b"import\t")):
                    self._run(imports(line))
                elif line.strip() and not line.startswith(b"#"):
                    self._path.append(posixpath.join(folder, line.strip()))

    def _script(self, path: bytes) -> None:
        found = real(self._root, path)
        if found is not None and found[0].is_directory:
            found = real(self._root, posixpath.join(path, b"__main__.py"))
        if found is not None and stat.S_ISREG(found[0].mode):
            self._found(*found)
            self._path.insert(0, posixpath.dirname(found[1]))
            self._run(imports(self._texts.of(found[0]), main=True))

    def _main_module(self, name: bytes) -> None:
        above = name.rpartition(b".")[0]
        self._run([Import(above)] if above else [])
        module = self._load(name)
        if module is not None and module.folders:
            self._run(self._imports(module), module)
            module = self._load(name + b".__main__")
        if module is not None:
            self._run(self._imports(module, main=True), module)

    def _tell(self, path: bytes) -> None:
        if (node := regular(self._root, path)) is not None:
            self._found(node, path)

    def _run(self, statements: Iterable[Import], module: Module | None = None) -> None:
        """Follow the *statements* of *module*, and those of what they import, as they would run.

        Modules import one another as deep as they like, so this keeps a stack of its own.
        """
        stack = [self._names(statements, module)]
        while stack:
            name = next(stack[-1], None)
            if name is None:
                stack.pop()
            elif name not in self._modules and (loaded := self._load(name)) is not None:
                stack.append(self._names(self._imports(loaded), loaded))

    def _names(self, statements: Iterable[Import], module: Module | None) -> Iterator[bytes]:
        """Yield the modules that *statements* ask for, each when those before are loaded."""
        missed = False
        for one in statements:
            base = _absolute(one, module)
            if base is None or len(base) > _NAME or (one.instead and not missed):
                continue
            parts = base.split(b".")
            for count in range(1, len(parts) + 1):
                yield b".".join(parts[:count])
            loaded = self._modules.get(base)
            missed = loaded is None
            if loaded is not None and loaded.folders:
                yield from (b"%s.%s" % (base, name) for name in one.names)

    def _load(self, name: bytes) -> Module | None:
        """Return a module, which is told of the first time; None where it is not there."""
        if name in self._modules or len(self._modules) >= _NAMES:
            return self._modules.get(name)
        above, _, _ = name.rpartition(b".")
        outer = self._modules.get(above)
        folders = self._path[:_FOLDERS] if not above else () if outer is None else outer.folders
        module = self._modules[name] = self._finder.find(name, folders)
        frozen = name in _FROZEN and self._python.minor >= _FREEZES
        if module is not None and module.file is not None and not frozen:
            self._found(*module.file)
        return module

    def _imports(self, module: Module, main: bool = False) -> Iterator[Import]:
        if module.source is None:
            return iter(())
        return imports(self._texts.of(module.source), main)


def _absolute(one: Import, module: Module | None) -> bytes | None:
    """Return the full name of what a statement of *module* asks for; None where there is none."""
    if not one.level:
        return one.module
    parts = module.package.split(b".") if module is not None and module.package else []
    if one.level > len(parts):
        return None
    parts = parts[: len(parts) - one.level + 1]
    return b".".join([*parts, one.module] if one.module else parts)


def _called(words: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return what an interpreter with *words* runs: ``c`` or ``m`` with its value, or a path."""
    waiting = iter(words)
    for word in waiting:
        if not word.startswith(b"-"):
            return b"", word
        for place in range(1, 1 if word.startswith(b"--") else len(word)):
            letter, rest = word[place : place + 1], word[place + 1 :]
            if letter in (b"c", b"m"):
                return letter, rest or next(waiting, b"")
            if letter in _WITH_VALUE:
                if not rest:
                    next(waiting, None)
                break
    return b"", b""
