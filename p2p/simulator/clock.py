"""Virtual time: what happens when, in order; events of one moment in the order of their making."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Clock:
    """The time, and what is to come."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._made = 0

    def at(self, when: float, what: Callable[[Any], None], fact: Any = None) -> None:
        """Let *what* happen to *fact* at a time."""
        self._made += 1
        heappush(self._heap, (when, self._made, what, fact))

    def run(self, until: float, done: Callable[[], bool]) -> None:
        """Let time pass until nothing is left, it is over, or *done* after some event."""
        heap = self._heap
        while heap and not done():
            for _ in range(256):
                if not heap:
                    break
                when, _made, what, fact = heappop(heap)
                if when > until:
                    self.now = until
                    return
                self.now = when
                self.events += 1
                what(fact)
