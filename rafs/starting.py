"""What a container reads at every start, told by its files alone: nothing of them is run.

It is the program that the image's config names, the interpreter of a script, what a wrapper or a
shell goes on to, the loader, the list of libraries, those that programs and libraries name, in the
order in which a loader opens them, and of programs of Python and Node the modules that they import.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from .libraries import Libraries
from .listed import ReadFile, regular
from .nodestart import NodeStart, is_node
from .pythonpath import python_at
from .pythonstart import PythonStart
from .texts import as_bytes
from .tree import Node

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What container runtimes look programs up in, where the image does not say."""

_LARGE = 64 << 20
"""Bytes of a file from which on it is not listed: a start reads but parts of it."""

_PROGRAMS = 8
"""That start one another."""

_LINE = 256
"""Bytes of a script's first line that count: Linux' own limit."""

_TEXT = 64 << 10
"""Bytes of a shell's script that are looked at."""

_SHELLS = frozenset({b"sh", b"bash", b"dash", b"ash"})
_WRAPPERS = frozenset({b"env", b"exec", b"tini", b"tini-static", b"dumb-init"})
"""Programs that become the one that their words name."""

_SETTING = re.compile(rb"\w+=.*", re.DOTALL)
_PASSES_ON = re.compile(rb'^[ \t]*exec\b.*"\$@"', re.MULTILINE)
_PLAIN = re.compile(r"[\w./:=@%+,-]+")
"""A word that means itself to a shell."""


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
    start = _Start(root, read, as_bytes(folder), settings)
    start.program(list(map(as_bytes, words)), _PROGRAMS)
    return [node for node in start.found if node.size < _LARGE]


def _words(value: object) -> list[str]:
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


class _Start:
    def __init__(
        self, root: Node, read: ReadFile, folder: bytes, settings: Mapping[str, str]
    ) -> None:
        self.found: dict[Node, None] = {}
        self._root = root
        self._read = read
        self._folder = folder
        self._search = as_bytes(settings.get("PATH") or _PATH).split(b":")
        self._settings = settings
        self._libraries = Libraries(root, read)

    def program(self, words: Sequence[bytes], programs: int) -> None:
        """List the program that *words* call, and what it needs and starts."""
        path = next(self._paths(words[0]), None) if words and programs else None
        node = None if path is None else regular(self._root, path)
        if node is None or path is None:
            return
        line = self._read(node, 0, _LINE)
        if line.startswith(b"#!"):
            self.found[node] = None
            interpreter = line[2:].splitlines()[0].split() if line[2:].strip() else []
            self.program([*interpreter, path, *words[1:]] if interpreter else (), programs - 1)
            return
        self._opened(node, path)
        python = python_at(self._root, path)
        if is_node(self._root, path):
            NodeStart(self._root, self._read, self._opened).follow(words[1:], self._folder)
        elif python is not None:
            start = PythonStart(self._root, python, self._read, self._opened)
            start.follow(words[1:], self._folder, self._settings)
        else:
            self.program(self._called(posixpath.basename(path), words[1:]), programs - 1)

    def _opened(self, node: Node, path: bytes) -> None:
        self.found.update(dict.fromkeys(self._libraries.opened(node, path)))

    def _called(self, name: bytes, words: Sequence[bytes]) -> Sequence[bytes]:
        """Return the command that a program *name* goes on to; empty: none that is known."""
        if name in _WRAPPERS:
            return _unwrapped(words)
        if name not in _SHELLS or not words:
            return ()
        if words[0].startswith(b"-"):
            text = words[1:2] if words[0].endswith(b"c") else ()
            return _unwrapped(_shell_words(text[0][:_TEXT])) if text else ()
        script = regular(self._root, posixpath.join(self._folder, words[0]))
        if script is None:
            return ()
        self.found[script] = None
        return words[1:] if _PASSES_ON.search(self._read(script, 0, _TEXT)) else ()

    def _paths(self, name: bytes) -> Iterator[bytes]:
        """Yield where a program of that name is, the first one first."""
        if not name:
            return
        folders = (self._folder,) if b"/" in name else self._search
        for folder in folders:
            path = posixpath.join(folder, name)
            if regular(self._root, path) is not None:
                yield path


def _unwrapped(words: Sequence[bytes]) -> Sequence[bytes]:
    """Return *words* from the first on that is no option and no setting."""
    for place, word in enumerate(words):
        if word not in _WRAPPERS and not word.startswith(b"-") and not _SETTING.fullmatch(word):
            return words[place:]
    return ()


def _shell_words(text: bytes) -> Sequence[bytes]:
    """Return the words of a shell's command as far as they are plain."""
    try:
        words = shlex.split(text.decode())
    except ValueError:  # quotes that do not end, or no UTF-8
        return ()
    plain = next((i for i, word in enumerate(words) if not _PLAIN.fullmatch(word)), len(words))
    return [word.encode() for word in words[:plain]]
