"""containerd's filters: ``kind==committed,labels."containerd.io/gc.root"~=2026``.

::

    filter   = selector {"," selector}          all must hold; of several filters one is enough
    selector = field {"." field} [operator value]
    operator = "==" | "!=" | "~="               without one the field must be there
    field    = quoted | letters, digits, "_"    value = quoted | anything but "," and spaces
    quoted   = "…" as in Go; a value after "~=" may stand between / or | as well
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

Fields = Mapping[str, str | Mapping[str, str]]

_FIELD = re.compile(r"\s*([A-Za-z0-9_]+)")
_OPERATOR = re.compile(r"\s*([=!~]+)")
_VALUE = re.compile(r'\s*([^,\s"][^,\s]*)')
_QUOTED = re.compile(r'\s*(["/|])((?:\\.|(?!\1)[^\\\n])*)\1')
_SEPARATOR = re.compile(r"\s*([,.])")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)")
_PLAIN = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

_LONGEST_PATTERN = 1024
"""Characters of a regular expression."""


class BadFilter(ValueError):
    """A filter that cannot be read."""


def _matches(value: str, pattern: str) -> bool:
    return re.search(pattern, value) is not None


_OPERATORS: Mapping[str, Callable[[str, str], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "~=": _matches,
}


@dataclass(frozen=True, slots=True)
class _Selector:
    path: Sequence[str]
    operator: str = ""
    value: str = ""

    def holds(self, fields: Fields) -> bool:
        found = _value(self.path, fields)
        if not self.operator:
            return found is not None
        return _OPERATORS[self.operator](found or "", self.value)


@dataclass(frozen=True, slots=True)
class Filter:
    """Whether something is wanted."""

    alternatives: Sequence[Sequence[_Selector]]

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Filter:
        """Read filters of which one must hold, or none at all; raises BadFilter."""
        return cls([_Parser(text).selectors() for text in texts])

    def holds(self, fields: Fields) -> bool:
        """Say whether what *fields* tell of is wanted."""
        if not self.alternatives:
            return True
        return any(all(one.holds(fields) for one in filter_) for filter_ in self.alternatives)


def _value(path: Sequence[str], fields: Fields) -> str | None:
    found = fields.get(path[0])
    if isinstance(found, Mapping):
        return found.get(".".join(path[1:]))
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def selectors(self) -> list[_Selector]:
        if not self._text:
            return []
        found = [self._selector()]
        while self._take(_SEPARATOR, ","):
            found.append(self._selector())
        if self._text[self._at :].strip():
            self._fail("what is this")
        return found

    def _selector(self) -> _Selector:
        path = [self._field()]
        while self._take(_SEPARATOR, "."):
            path.append(self._field())
        said = self._take(_OPERATOR)
        if not said:
            return _Selector(path)
        if said not in _OPERATORS:
            self._fail(f"{said!r} is no operator")
        return _Selector(path, said, self._operand(said))

    def _field(self) -> str:
        quoted = self._quoted('"')
        name = self._take(_FIELD) if quoted is None else quoted
        return name or self._fail("expected a field")

    def _operand(self, said: str) -> str:
        value = self._quoted('"/|' if said == "~=" else '"')
        if value is None:
            value = self._take(_VALUE) or self._fail("expected a value")
        if said == "~=":
            self._check(value)
        return value

    def _check(self, pattern: str) -> None:
        try:
            if len(pattern) > _LONGEST_PATTERN:
                self._fail("a regular expression that long")
            re.compile(pattern)
        except re.error as exc:
            self._fail(f"no regular expression: {exc}")

    def _quoted(self, quotes: str) -> str | None:
        found = _QUOTED.match(self._text, self._at)
        if found is None or found[1] not in quotes:
            return None
        self._at = found.end()
        try:
            return _ESCAPE.sub(_unescaped, found[2])
        except ValueError:
            self._fail("no such character")

    def _take(self, pattern: re.Pattern[str], wanted: str = "") -> str:
        found = pattern.match(self._text, self._at)
        if found is None or (wanted and found[1] != wanted):
            return ""
        self._at = found.end()
        return found[1]

    def _fail(self, what: str) -> NoReturn:
        raise BadFilter(f"filter {self._text[:200]!r}, character {self._at}: {what}")


def _unescaped(found: re.Match[str]) -> str:
    text = found[1]
    if len(text) > 1:
        return chr(int(text, 8) if text.isdigit() else min(int(text[1:], 16), 1 << 21))
    return _PLAIN.get(text, text)
