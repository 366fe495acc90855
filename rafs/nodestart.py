"""What a program of Node reads before it does anything: the modules that its modules ask for.

Sources are searched, nothing is run. What stands at the beginning of a line, or in a list or an
object, is asked for when the module is loaded; what is indented else mostly stands in a function,
which may never be called.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from .listed import Found, ReadFile, real, regular
from .texts import Texts, as_bytes
from .tree import Node

_NAMES = 16384
"""That are looked for at most."""

_DEPTH = 8
"""Conditions within conditions."""

_ASKED = re.compile(
    rb"""(?:\b(require)[ \t]*\([ \t]*|\bfrom[ \t]*|^import[ \t]*)(["'])([^"'\\]{1,255})\2"""
)
_LISTED = re.compile(rb"""[ \t]+(?:[\w$"'-]+:[ \t]*require[ \t]*\(|\.{0,3}require[ \t]*\(.*\),)""")
_INDENTED = (b" ", b"\t", b"*", b"/")
_SUFFIXES = (b"", b".js", b".json", b".node")
_INDEXES = (b"index.js", b"index.json", b"index.node")
_CONDITIONS = frozenset({"node", "default", "node-addons"})
_FOLDERS = (b"/usr/local/lib/node_modules", b"/usr/share/nodejs", b"/usr/lib/nodejs")
"""The last two are Debian's."""

_WITH_VALUE = frozenset({b"-r", b"--require", b"--import", b"--loader", b"-C", b"--conditions"})
_FILES = frozenset({b"-r", b"--require", b"--import"})

_INSIDE = frozenset(
    b"assert async_hooks buffer child_process cluster console constants crypto dgram"
    b" diagnostics_channel dns domain events fs http http2 https inspector module net os path"
    b" perf_hooks process punycode querystring readline repl stream string_decoder sys timers tls"
    b" trace_events tty url util v8 vm wasi worker_threads zlib".split()
)
"""Modules that the program itself has, whatever lies elsewhere under their names."""


def is_node(root: Node, path: bytes) -> bool:
    """Say whether a call of *path* runs Node."""
    found = real(root, path)
    return found is not None and posixpath.basename(found[1]) in (b"node", b"nodejs")


class NodeStart:
    """One start of a program."""

    def __init__(self, root: Node, read: ReadFile, found: Found) -> None:
        self._root, self._texts, self._found = root, Texts(read), found
        self._packages: dict[bytes, Mapping[str, object]] = {}
        self._seen: set[Node] = set()
        self._names = _NAMES

    def follow(self, words: Sequence[bytes], folder: bytes) -> None:
        """Tell what a call with *words* in *folder* reads."""
        waiting = iter(words)
        for word in waiting:
            if not word.startswith(b"-"):
                self._load(posixpath.join(b"/", folder, word))
                return
            name, equals, value = word.partition(b"=")
            if name in _WITH_VALUE:
                value = value if equals else next(waiting, b"")
                if name in _FILES and value and (path := self._resolved(value, folder, "require")):
                    self._load(path)
            elif name in (b"-e", b"--eval", b"-p", b"--print"):
                return

    def _load(self, path: bytes) -> None:
        """Load a module, and those that it asks for, in their order.

        Modules ask for one another as deep as they like, so this keeps a stack of its own.
        """
        stack = [iter((path,))]
        while stack:
            wanted = next(stack[-1], None)
            if wanted is None:
                stack.pop()
                continue
            place = self._file(wanted)
            if place is None or place[0] in self._seen:
                continue
            self._seen.add(place[0])
            self._scope(posixpath.dirname(place[1]))
            self._found(*place)
            if not place[1].endswith((b".json", b".node")):
                stack.append(self._asked(*place))

    def _asked(self, node: Node, path: bytes) -> Iterator[bytes]:
        """Yield where the modules are that a module asks for."""
        folder = posixpath.dirname(path)
        for line in self._texts.of(node).splitlines():
            if line.startswith(_INDENTED) and not _LISTED.match(line):
                continue
            for match in _ASKED.finditer(line.partition(b" //")[0]):
                found = self._resolved(match[3], folder, "require" if match[1] else "import")
                if found is not None:
                    yield found

    def _resolved(self, name: bytes, folder: bytes, how: str) -> bytes | None:
        """Return where the module *name* is, asked for in *folder*; None for one that is inside.

        *how* is ``require`` or ``import``: a package may answer them by different files.
        """
        if name.startswith((b"./", b"../", b"/")) or name in (b".", b".."):
            return posixpath.normpath(posixpath.join(folder, name))
        if name.startswith((b"node:", b"#")) or name in _INSIDE or self._names <= 0:
            return None
        self._names -= 1
        parts = name.split(b"/")
        count = 2 if name.startswith(b"@") else 1
        package, inner = b"/".join(parts[:count]), b"/".join(parts[count:])
        for above in _above(folder):
            place = posixpath.join(above, package)
            if regular(self._root, place + b".js") is not None:
                return place
            found = real(self._root, place)
            if found is not None:
                return self._exported(found[1], inner, how) or posixpath.join(found[1], inner)
        return None

    def _exported(self, place: bytes, inner: bytes, how: str) -> bytes | None:
        """Return what a package shows of itself under the name *inner*; None: it does not say."""
        exports = self._package(place).get("exports")
        if isinstance(exports, dict) and any(key.startswith(".") for key in exports):
            exports = exports.get("./" + inner.decode(errors="replace") if inner else ".")
        elif inner:
            return None
        target = _chosen(exports, _CONDITIONS | {how}, _DEPTH)
        return posixpath.join(place, as_bytes(target)) if target else None

    def _file(self, path: bytes) -> tuple[Node, bytes] | None:
        """Return the file that a module's place stands for."""
        for suffix in _SUFFIXES:
            if regular(self._root, path + suffix) is not None:
                return real(self._root, path + suffix)
        main = self._package(path).get("main")
        inner = [as_bytes(main)] if isinstance(main, str) and main else []
        for name in inner:
            for suffix in (*_SUFFIXES, *(b"/" + index for index in _INDEXES)):
                place = posixpath.join(path, name) + suffix
                if regular(self._root, place) is not None:
                    return real(self._root, place)
        for name in _INDEXES:
            if regular(self._root, posixpath.join(path, name)) is not None:
                return real(self._root, posixpath.join(path, name))
        return None

    def _scope(self, folder: bytes) -> None:
        """Tell of what says of which kind the modules in *folder* are."""
        while not self._package(folder) and folder not in (b"/", b""):
            folder = posixpath.dirname(folder)

    def _package(self, folder: bytes) -> Mapping[str, object]:
        """Return what describes the package in *folder*, which is told of; empty where nothing."""
        if folder not in self._packages:
            self._packages[folder] = {}
            path = posixpath.join(folder, b"package.json")
            if (node := regular(self._root, path)) is not None:
                self._found(node, path)
                self._packages[folder] = _decoded(self._texts.of(node))
        return self._packages[folder]


def _above(folder: bytes) -> Iterator[bytes]:
    """Yield the folders of packages that a module in *folder* looks in."""
    while True:
        if posixpath.basename(folder) != b"node_modules":
            yield posixpath.join(folder, b"node_modules")
        if folder in (b"/", b""):
            break
        folder = posixpath.dirname(folder)
    yield from _FOLDERS


def _chosen(value: object, conditions: Collection[str], depth: int) -> str:
    """Return the file that conditions lead to; empty: none."""
    if isinstance(value, str):
        return value
    if not depth:
        return ""
    if isinstance(value, list):
        fitting = iter(value)
    elif isinstance(value, dict):
        fitting = (each for key, each in value.items() if key in conditions)
    else:
        return ""
    found = (_chosen(each, conditions, depth - 1) for each in fitting)
    return next(filter(None, found), "")


def _decoded(text: bytes) -> Mapping[str, object]:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
