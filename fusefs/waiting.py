"""How many reads of one image may wait for its sources: pure.

Each waiting read holds a request of the kernel and a task, and both are bounded for the whole
session. While data arrives, readers wait as long as it takes. When none has for a while, reads
beyond a bound fail at once, so that a dead origin's readers leave room for everybody else.
"""

from __future__ import annotations

from .errors import Overloaded

MOST = 256
"""Reads of one image that may wait while nothing arrives."""

PATIENCE = 5.0
"""Seconds without a fetched read after which nothing counts as arriving."""


class Waiting:
    """The waiting reads of one image."""

    def __init__(self) -> None:
        self.count = 0
        self._arrived = 0.0
        """When the last of them was answered, or the first began to wait."""

    def enter(self, now: float) -> None:
        """Begin to wait; raises Overloaded."""
        if not self.count:
            self._arrived = now
        if self.count >= MOST and now - self._arrived > PATIENCE:
            raise Overloaded(f"{self.count} reads wait and nothing has come for {PATIENCE:.0f} s")
        self.count += 1

    def leave(self, now: float, *, answered: bool) -> None:
        """Wait no more."""
        self.count -= 1
        if answered:
            self._arrived = now
