"""Spans: which ranges of a stored blob to ask for, to have certain chunks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .chunk import Chunk, Codec
from .codec import MAX_UNIT

GAP = 8 << 10
"""Stored bytes between two chunks that are fetched along rather than asked around: less than a
request's headers and round trip cost. Nydus bridges as much at 1 MiB requests."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A stored run of bytes that decodes as a whole, with the chunks wanted from it."""

    start: int
    """In the stored blob."""
    stop: int
    codec: Codec
    size: int
    """Decoded bytes."""
    chunks: list[Chunk] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Span:
    """A range of the stored blob: one request."""

    units: list[Unit]

    @property
    def start(self) -> int:
        """Where it starts in the stored blob."""
        return self.units[0].start

    @property
    def stop(self) -> int:
        """Where it ends."""
        return max(unit.stop for unit in self.units)


def adjacent(chunk: Chunk, after: Chunk) -> bool:
    """Say whether *after*'s stored bytes follow *chunk*'s, or are the same unit's."""
    same = chunk.stored_offset == after.stored_offset and chunk.stored_size == after.stored_size
    return same or 0 <= after.stored_offset - chunk.stored_stop <= GAP


def possible(chunk: Chunk) -> bool:
    """Say whether a blob can have *chunk* where it says it is stored, in memory that we have."""
    return 0 < chunk.stored_size <= MAX_UNIT and 0 < (chunk.unit_size or chunk.size) <= MAX_UNIT


def spans(chunks: Sequence[Chunk], limit: int) -> list[Span]:
    """Return the ranges of at most *limit* bytes (or one unit) that bring *chunks*."""
    found: list[Span] = []
    for unit in _units(chunks):
        last = found[-1] if found else None
        if last and unit.start - last.stop <= GAP and unit.stop - last.start <= limit:
            last.units.append(unit)
        else:
            found.append(Span([unit]))
    return found


def _units(chunks: Sequence[Chunk]) -> list[Unit]:
    units: dict[tuple[int, int, Codec, int], Unit] = {}
    for chunk in chunks:
        size = chunk.unit_size or chunk.size
        key = (chunk.stored_offset, chunk.stored_stop, chunk.codec, size)
        units.setdefault(key, Unit(*key)).chunks.append(chunk)
    return [units[key] for key in sorted(units, key=lambda key: key[:2])]
