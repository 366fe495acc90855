"""Challenge: what a server that answers 401 wants to see (RFC 9110, 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LONGEST = 8 << 10
"""Characters of the header that are looked at."""

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?=\s|,|$)")
_PARAMETER = re.compile(rf'[\s,]*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
_QUOTED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to prove oneself."""

    scheme: str
    """Lower case: ``basic``, ``bearer``."""
    parameters: tuple[tuple[str, str], ...] = ()
    """Names in lower case."""

    def get(self, name: str) -> str | None:
        """Return the parameter *name*, if it is there."""
        return dict(self.parameters).get(name)


def challenges(text: str) -> Iterator[Challenge]:
    """Yield what ``WWW-Authenticate`` offers, as far as it can be read."""
    text = text[:_LONGEST]
    at = 0
    while scheme := _SCHEME.match(text, at):
        at = scheme.end()
        parameters = []
        while parameter := _PARAMETER.match(text, at):
            name, quoted, plain = parameter.groups()
            value = plain if quoted is None else _QUOTED.sub(r"\1", quoted)
            parameters.append((name.lower(), value))
            at = parameter.end()
        yield Challenge(scheme[1].lower(), tuple(parameters))
