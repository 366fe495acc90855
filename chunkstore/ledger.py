"""Ledger, Pulse and Fault: what was had from where, what moved last, and what failed last."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass


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


class Ledger:
    """Tallies by the name of the source: ``cache``, ``peer``, ``origin``."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        """Kept as lists: adding is on the way of every read."""

    def add(
        self, name: str, *, chunks: int = 0, size: int = 0, stored_size: int = 0, failures: int = 0
    ) -> None:
        """Add to what *name* has given."""
        counts = self._counts[name]
        counts[0] += chunks
        counts[1] += size
        counts[2] += stored_size
        counts[3] += failures

    @property
    def tallies(self) -> Mapping[str, Tally]:
        """What each source has given by now."""
        return {name: Tally(*counts) for name, counts in self._counts.items()}


class Fault:
    """What went wrong last, and when by the clock of the day; empty and 0 before anything did."""

    def __init__(self) -> None:
        self.text = ""
        self.at = 0.0

    def note(self, text: str) -> None:
        """Note that *text* went wrong now."""
        self.text, self.at = text, time.time()


class Pulse:
    """When bytes last arrived, on the clock of whoever beats it; shared by a stack of sources."""

    def __init__(self) -> None:
        self.last = -math.inf

    def beat(self, now: float) -> None:
        """Note that something moved at *now*."""
        self.last = max(self.last, now)
