"""Numbers as people write them in scenarios: ``"1GiB"``, ``"100Mbit"``, ``"5ms"``."""

from __future__ import annotations

import re

from chunkstore.errors import Malformed

_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)")
_UNITS = {
    "b": 1.0,
    "kib": 1024.0,
    "mib": 1024.0**2,
    "gib": 1024.0**3,
    "kbit": 1e3 / 8,
    "mbit": 1e6 / 8,
    "gbit": 1e9 / 8,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
}
"""Bytes, bytes per second, seconds; the letter case does not matter."""

_NAMES = frozenset({"kind", "site", "name", "evaluator"})
"""Keys whose values are text."""


def number(text: str) -> float:
    """Return the number that *text* says; raise Malformed where it says none."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match[2].lower() not in _UNITS:
        raise Malformed("scenario: no number with a unit", text)
    value = float(match[1]) * _UNITS[match[2].lower()]
    return int(value) if value.is_integer() else value


def plain(value: object, key: str = "") -> object:
    """Return a decoded TOML value with every number that has a unit made plain."""
    if isinstance(value, dict):
        return {name: plain(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each, key) for each in value]
    if isinstance(value, str) and key not in _NAMES:
        return number(value)
    return value
