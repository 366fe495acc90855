"""Ledger and Pulse: what was had from where, and when something last moved."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Tally:
    """What one kind of source has given so far."""

    chunks: int = 0
    size: int = 0
    """Decoded bytes."""
    stored_size: int = 0
    """Bytes that came over the wire, with those of gaps and of repeated attempts."""
    failures: int = 0
    """Fetches that ended in an error."""


@dataclass(slots=True)
class Ledger:
    """Tallies by the name of the source: ``cache``, ``peer``, ``origin``."""

    tallies: dict[str, Tally] = field(default_factory=dict)

    def add(
        self, name: str, *, chunks: int = 0, size: int = 0, stored_size: int = 0, failures: int = 0
    ) -> None:
        """Add to what *name* has given."""
        known = self.tallies.get(name, Tally())
        self.tallies[name] = Tally(
            known.chunks + chunks,
            known.size + size,
            known.stored_size + stored_size,
            known.failures + failures,
        )


class Pulse:
    """When bytes last arrived, on the clock of whoever beats it; shared by a stack of sources."""

    def __init__(self) -> None:
        self.last = -math.inf

    def beat(self, now: float) -> None:
        """Note that something moved at *now*."""
        self.last = max(self.last, now)
