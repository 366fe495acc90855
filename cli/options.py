"""Options that several commands share, and the types that their values are read with."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from chunkstore import Digest, Malformed

F = TypeVar("F", bound=Callable[..., object])

_BINARY = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?b|bit)?(?:/s|ps)?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_size(text: str) -> int:
    """Return the bytes that ``50GiB``, ``50G`` (the same), ``50GB`` or ``100mbit`` stand for.

    Raises ValueError for anything else.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(text)
    number, prefix, unit = found[1], found[2].lower(), (found[3] or "ib").lower()
    base = 1024 if unit == "ib" else 1000
    value = float(number) * base ** _BINARY[prefix]
    return int(value / 8 if unit == "bit" else value)


def parse_duration(text: str) -> float:
    """Return the seconds that ``30s``, ``500ms``, ``2m`` or ``30`` stand for, else ValueError."""
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise ValueError(text)
    return float(found[1]) * _SECONDS[found[2] or "s"]


class _Parsed(click.ParamType[object]):
    """A value that a parsing function reads; what it raises becomes a usage error."""

    def __init__(self, name: str, parse: Callable[[str], object], example: str) -> None:
        self.name = name
        self._parse = parse
        self._example = example

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """Parse *value* unless it has been."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except (ValueError, Malformed):
            self.fail(f"{value!r} is no {self.name.lower()} such as {self._example}", param, ctx)


SIZE = _Parsed("SIZE", parse_size, "50GiB")
DURATION = _Parsed("DURATION", parse_duration, "30s")
DIGEST = _Parsed("DIGEST", Digest.parse, "sha256:… (64 hexadecimal digits)")
FOLDER = click.Path(file_okay=False, path_type=Path)


def cache_option(command: F) -> F:
    """Add ``--cache DIR``."""
    return click.option(
        "--cache",
        type=FOLDER,
        envvar="NAIAD_CACHE",
        help="The blob cache.  [default: /var/cache/naiad, or ~/.cache/naiad without root]",
    )(command)


def plain_http_option(command: F) -> F:
    """Add ``--plain-http``."""
    return click.option(
        "--plain-http", is_flag=True, help="Speak HTTP, not HTTPS, with a registry."
    )(command)


def digest_option(command: F) -> F:
    """Add ``--digest``, the pin of the bootstrap."""
    return click.option(
        "--digest",
        type=DIGEST,
        help="What the image's bootstrap must hash to; else nothing is read from it.",
    )(command)


def json_option(command: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)
