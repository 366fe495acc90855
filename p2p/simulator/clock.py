"""Virtual time: what happens when, in order; events of one moment in the order of their making.

Time is cut into ticks. Only the events of the present tick are kept in order; those of later ones
lie unordered until their tick comes: most of a hundred thousand events that lie ahead are then
touched twice and not once per level of one large heap.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

TICKS = 4096
"""Per second: a few hundred events each with ten thousand hosts."""

_Event = tuple[float, int, Callable[[Any], None], Any]


class Clock:
    """The time, and what is to come."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._present: list[_Event] = []
        """The events of this tick and any before it, a heap."""
        self._tick = 0
        self._later: dict[int, list[_Event]] = {}
        """By tick."""
        self._ticks: list[int] = []
        """Those of *_later*, a heap."""
        self._made = 0

    def at(self, when: float, what: Callable[[Any], None], fact: Any = None) -> None:
        """Let *what* happen to *fact* at a time."""
        self._made += 1
        tick = int(when * TICKS)
        if tick <= self._tick:
            heappush(self._present, (when, self._made, what, fact))
            return
        later = self._later.get(tick)
        if later is not None:
            later.append((when, self._made, what, fact))
        else:
            self._later[tick] = [(when, self._made, what, fact)]
            heappush(self._ticks, tick)

    def run(self, until: float, done: Callable[[], bool]) -> None:
        """Let time pass until nothing is left, it is over, or *done* after some event."""
        present = self._present
        while (present or self._ticks) and not done():
            for _ in range(256):
                if not present and not self._turn():
                    break
                when, _made, what, fact = heappop(present)
                if when > until:
                    self.now = until
                    return
                self.now = when
                self.events += 1
                what(fact)

    def _turn(self) -> bool:
        """Go on to the next tick that has events; return whether there is one."""
        if not self._ticks:
            return False
        self._tick = heappop(self._ticks)
        self._present.extend(self._later.pop(self._tick))
        heapify(self._present)
        return True
