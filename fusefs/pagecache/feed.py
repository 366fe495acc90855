"""Feed: what of one open file to bring into the kernel's page cache next. Pure.

The file is cut into steps. A step is idle, asked for (being fetched or about to be pushed), or was
pushed at some time. What is asked for next:

1. what follows where a reader found nothing, up to the end of the tensor that it is in, such places
   in turn: threads that load distant tensors at once are several readers;
2. what follows the latest such place, then whatever is left in the order of the file, which is the
   order in which loaders read tensors.

A reader that finds everything in place is not seen at all. So a page is left out now and then,
whose READ tells that somebody still comes along; between two READs no more than *level* bytes are
brought. The level doubles as readers go on.

What a READ has asked for by itself is not pushed again, and a push must not reach into it: the
pages of a READ that waits are locked by the kernel.
"""

from __future__ import annotations

import math
import sys
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

STEP = 1 << 20
"""Bytes; the largest READ, and the usual chunk."""

PAGE = 4096

FIRST_LEVEL, LAST_LEVEL = 4 << 20, 256 << 20
"""Bytes that are brought on the strength of one READ: where a file was only seen to be read in
order, and at most. A quarter of the level lies between two pages left out."""

ASKED = 64
"""Steps under way at once: more than any fetcher has on the wire ahead of readers, and as many that
wait for the threads that push."""

PLACES = 16
"""Places followed at once."""

DROPPED = 64 << 10
"""Bytes of a pushed step: a READ for no more is no sign that the kernel has dropped it. Such come
now and then where many threads fault at once, and half of a model was pushed twice for it."""

SETTLED = 1.0
"""Seconds after which a READ of what was pushed means that the kernel has dropped it."""

_IDLE, _ASKED, _LEAVING = -1.0, math.inf, sys.float_info.max
"""States of a step; else it is the time of its push. What is leaving for the kernel counts as
pushed just now: a machine that is busy may need seconds for that."""


@dataclass(slots=True)
class _Place:
    """Where a reader found nothing."""

    at: int
    """The step to ask for next."""
    urgent: int
    """Steps in front of this one are what that reader is at."""
    number: int
    """Places are counted: the latest has the largest."""


class Feed:
    """One file's steps."""

    def __init__(
        self,
        size: int,
        *,
        level: int = FIRST_LEVEL,
        begin: int = 0,
        pushes: bool = True,
        again: bool = False,
    ) -> None:
        """Feed a file of *size* bytes.

        What lies before *begin* is left alone: it was read before. A feed that never *pushes* only
        says what to fetch: every read is a READ then. One that comes *again* goes on, when all was
        brought, for what the kernel has dropped.
        """
        self.pushes = pushes
        """Whether what was fetched is to be pushed."""
        self._again = again
        self._size = size
        self._bounds: Sequence[int] = ()
        self._steps = array("d", [_IDLE]) * -(-size // STEP)
        self._first = begin // STEP
        self._left = len(self._steps) - self._first
        """Idle steps from the first on."""
        self._places: list[_Place] = []
        """In the order of their turns."""
        self._count = 0
        self._sweep = self._first
        """Where to look for an idle step when no place has one."""
        self._read: dict[int, list[tuple[int, int]]] = {}
        """What READs asked for of steps that are not pushed yet."""
        self._level = level
        self._grown_at = 0
        self._brought = 0
        """Bytes asked for since the last READ."""
        self._halted = False
        self._unwired = 0
        """Bytes pushed since a page was left out."""
        self.asked = 0
        """Steps under way."""
        self.limit = LAST_LEVEL
        """Bytes to bring on the strength of one READ at most, as memory allows."""

    def bound(self, bounds: Sequence[int]) -> None:
        """Learn where tensors begin, in order."""
        self._bounds = bounds

    def read(self, start: int, stop: int, now: float) -> None:
        """Take note of a READ of ``[start, stop)``, which is not empty."""
        first, last = start // STEP, (stop - 1) // STEP
        self._encourage(first)
        for step in range(max(first, self._first), min(last + 1, len(self._steps))):
            state = self._steps[step]
            if state in (_IDLE, _ASKED):
                if self.pushes:
                    self._read.setdefault(step, []).append((start, stop))
                if state == _IDLE:
                    self._follow(step)
            elif self.pushes and now - state > SETTLED and self._lacks(step, start, stop):
                self._forget(now)
                self._follow(step)

    def take(self) -> int | None:
        """Return the step to ask for next, which is under way from now on."""
        if self.asked >= ASKED or not self._wants:
            return None
        step = self._next()
        self._steps[step] = _ASKED
        self._left -= 1
        self._brought += STEP
        self.asked += 1
        return step

    def put_back(self, step: int, *, failed: bool = False) -> None:
        """Have *step*, which could not be had, idle again; after a failure wait for a READ."""
        self._steps[step] = _IDLE
        self._left += 1
        self._sweep = min(self._sweep, step)
        self._brought -= STEP
        self._halted = self._halted or failed
        self.asked -= 1

    def span(self, step: int) -> tuple[int, int]:
        """Return the bytes of *step*."""
        return step * STEP, min((step + 1) * STEP, self._size)

    def landed(self, step: int, now: float) -> list[tuple[int, int]]:
        """Return what to push of *step*, which has come; ``pushed`` or ``put_back`` follows.

        ``settle`` is called when the kernel has it.
        """
        start, stop = self.span(step)
        self._steps[step] = _LEAVING if self.pushes else now
        if not self.pushes:
            return []
        self._unwired += stop - start
        if self._unwired >= min(self._level, self.limit) // 4:
            self._unwired = 0
            stop = max(start, (stop - 1) // PAGE * PAGE)
        return _without(start, stop, self._read.pop(step, ()))

    def pushed(self) -> None:
        """Note that a step is no longer under way."""
        self.asked -= 1

    def settle(self, step: int, now: float) -> None:
        """Note that the kernel has what was to be pushed of a step."""
        if self._steps[step] == _LEAVING:
            self._steps[step] = now

    def halt(self) -> None:
        """Want nothing more until somebody reads, or `resume`."""
        self._halted = True

    def resume(self) -> None:
        """Go on: somebody has come back."""
        self._halted = False
        self._brought = 0

    @property
    def spent(self) -> bool:
        """Whether all of the file was asked for."""
        return not self._left

    @property
    def over(self) -> bool:
        """Whether nothing is left to do, nor will be."""
        return not self._left and not self.asked and not self._again

    @property
    def starves(self) -> bool:
        """Whether there is something to ask for that nothing under way will lead to."""
        return not self.asked and self._wants

    @property
    def _wants(self) -> bool:
        room = min(self._level, self.limit) - self._brought
        return self._left > 0 and room >= STEP and not self._halted

    def _lacks(self, step: int, start: int, stop: int) -> bool:
        """Say whether a READ asks for so much of a pushed step that it has been dropped."""
        first, last = self.span(step)
        return min(stop, last) - max(start, first) > DROPPED

    def _encourage(self, step: int) -> None:
        """Bring more: somebody is at *step*."""
        if abs(step - self._grown_at) * STEP >= self._level // 8:
            self._grown_at = step
            self._level = min(2 * self._level, LAST_LEVEL)
        self.resume()

    def _follow(self, step: int) -> None:
        urgent = step + 1
        index = bisect_right(self._bounds, step * STEP)
        if index < len(self._bounds):
            urgent = max(urgent, -(-self._bounds[index] // STEP))
        for place in self._places:
            if place.at - 1 <= step <= max(place.at + 1, place.urgent):
                place.urgent = max(place.urgent, urgent)
                return
        self._count += 1
        self._places.insert(0, _Place(step, urgent, self._count))
        if len(self._places) > PLACES:
            self._places.remove(min(self._places, key=lambda place: place.number))

    def _next(self) -> int:
        """Return an idle step; there is one."""
        for place in [place for place in self._places if self._ends(place)]:
            self._places.remove(place)
            self._sweep = place.at
        if not self._places:
            return self._swept()
        urgent = (place for place in self._places if place.at < place.urgent)
        place = next(urgent, None) or max(self._places, key=lambda place: place.number)
        self._places.remove(place)
        self._places.append(place)
        place.at += 1
        return place.at - 1

    def _ends(self, place: _Place) -> bool:
        return place.at >= len(self._steps) or self._steps[place.at] != _IDLE

    def _swept(self) -> int:
        for _ in range(2):
            for step in range(self._sweep, len(self._steps)):
                if self._steps[step] == _IDLE:
                    self._sweep = step + 1
                    return step
            self._sweep = self._first
        raise AssertionError("no step is idle")

    def _forget(self, now: float) -> None:
        """Take what was pushed a while ago for dropped: the kernel needed the room."""
        for step in range(self._first, len(self._steps)):
            state = self._steps[step]
            if state not in (_IDLE, _ASKED) and now - state > SETTLED:
                self._steps[step] = _IDLE
                self._left += 1


def _without(start: int, stop: int, holes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ``[start, stop)`` without *holes*."""
    found = []
    for hole_start, hole_stop in sorted(holes):
        if start < min(hole_start, stop):
            found.append((start, min(hole_start, stop)))
        start = max(start, hole_stop)
    if start < stop:
        found.append((start, stop))
    return found
