"""Finding, Report and Claims: what a check says, collects, and remembers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .errors import BadImage


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with an image."""

    structure: str
    offset: int
    """Byte where the structure starts: of the bootstrap, or of the blob for its chunks."""
    what: str

    def __str__(self) -> str:
        return f"{self.structure} at byte {self.offset}: {self.what}"


class Report:
    """Findings that nobody has taken yet."""

    def __init__(self) -> None:
        self._found: list[Finding] = []

    def add(self, structure: str, offset: int, what: str) -> None:
        """Note a finding."""
        self._found.append(Finding(structure, offset, what))

    def caught(self, error: BadImage) -> None:
        """Note what *error* says."""
        self.add(error.structure, error.offset, error.what or str(error))

    def __bool__(self) -> bool:
        """Say whether there is anything to take."""
        return bool(self._found)

    def take(self) -> Iterator[Finding]:
        """Yield and forget what was noted."""
        found, self._found = self._found, []
        yield from found


class Claims:
    """Which parts of a file something was found in, so that nothing may be there twice.

    A byte of memory per *unit* bytes of the file. Because no part is read for two structures, a
    walk takes time in proportion to the file, whatever is in it.
    """

    def __init__(self, size: int, unit: int) -> None:
        self._unit = unit
        self.taken = bytearray(-(-size // unit))

    def take(self, start: int, stop: int) -> bool:
        """Claim bytes ``[start, stop)``; say whether all were free and in the file."""
        first, last = start // self._unit, -(-stop // self._unit)
        if not 0 <= first <= last <= len(self.taken) or self.taken.find(1, first, last) >= 0:
            return False
        self.taken[first:last] = b"\1" * (last - first)
        return True
