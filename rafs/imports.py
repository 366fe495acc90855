"""The import statements of a text in Python, found line by line: pure, and content with any bytes.

It is no parser: the text may be of a newer language than the one that this runs in, or of none.
What is said in strings and comments does not count, nor what only a call would run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Whatever follows its first characters each alternative matches, so no byte is looked at twice.
_QUIET = re.compile(
    rb'"""[^"\\]*(?:(?:\\[\s\S]?|"(?!""))[^"\\]*)*+(?:""")?'
    rb"|'''[^'\\]*(?:(?:\\[\s\S]?|'(?!''))[^'\\]*)*+(?:''')?"
    rb'|"[^"\\\n]*(?:\\[\s\S]?[^"\\\n]*)*+"?'
    rb"|'[^'\\\n]*(?:\\[\s\S]?[^'\\\n]*)*+'?"
    rb"|#.*"
)
"""Strings and comments."""

_FOREIGN = frozenset(
    b"%c%s%c" % (q, name, q) for q in b"\"'" for name in (b"win32", b"nt", b"darwin")
)
"""The strings that matter: what a program asks for where it is not on Linux."""

_PARENTHESES = re.compile(rb"\bimport[ \t]*\(([^()]*)\)")
_LINE = re.compile(rb"([ \t\f]*)(\S.*)")
_CLAUSE = re.compile(rb"(?:try|else|finally)[ \t]*:[ \t]*")
_UNCALLED = re.compile(rb"(?:async[ \t]+)?def\b|if\b.*\b__name__\b")
_UNTRUE = re.compile(rb"if\b.*(?:TYPE_CHECKING\b|==[ \t]*[\"'])")
_IMPORT = re.compile(rb"import[ \t]+(.+)")
_FROM = re.compile(rb"from[ \t]*+(\.*+)(?:[ \t]*+([\w.]++))?[ \t]+import\b[ \t]*(.+)")
_NAME = re.compile(rb"[A-Za-z_]\w*(?:\.\w+)*+")


@dataclass(frozen=True, slots=True)
class Import:
    """One module that a text asks for."""

    module: bytes
    """With its dots; empty in ``from . import name``."""
    level: int = 0
    """Dots in front: 0 where the name is absolute."""
    names: tuple[bytes, ...] = ()
    """What is taken from it, each of which may be a module as well."""
    instead: bool = False
    """It stands in an ``except``: asked for where what stands before it was not to be had."""


def imports(text: bytes, main: bool = False) -> Iterator[Import]:
    """Yield what *text* imports, in its order, and as the *main* program also in functions."""
    text = _QUIET.sub(_kept, text).replace(b"\\\n", b" ")
    text = _PARENTHESES.sub(lambda match: b"import " + b" ".join(match[1].split()), text)
    skipped: int | None = None
    clause: int | None = None
    for line in text.splitlines():
        if (match := _LINE.match(line)) is None:
            continue
        indent, words = len(match[1].expandtabs()), match[2]
        if skipped is not None and indent > skipped:
            continue
        skipped = None
        if clause is not None and indent <= clause:
            clause = None
        if _UNTRUE.match(words) or (not main and _UNCALLED.match(words)):
            skipped = indent
        elif words.startswith(b"except"):
            clause = indent
        else:
            yield from _statements(_CLAUSE.sub(b"", words, count=1), clause is not None)


def _kept(match: re.Match[bytes]) -> bytes:
    text = match[0]
    if text.startswith(b"#"):
        return b""
    return text if text in _FOREIGN else b"S"


def _statements(line: bytes, instead: bool) -> Iterator[Import]:
    if b"import" not in line:
        return
    for statement in line.split(b";"):
        statement = statement.strip()
        if match := _IMPORT.fullmatch(statement):
            for name in _names(match[1]):
                yield Import(name, instead=instead)
        elif match := _FROM.fullmatch(statement):
            yield Import(match[2] or b"", len(match[1]), tuple(_names(match[3])), instead)


def _names(text: bytes) -> Iterator[bytes]:
    """Yield ``a`` and ``b.c`` of ``a as x, b.c``."""
    for one in text.split(b","):
        if match := _NAME.match(one.strip()):
            yield match[0]
