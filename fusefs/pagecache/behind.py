"""Behind: which pages of cache files are of no more use, as their bytes were pushed. Pure.

A pushed page is in memory twice, once as the cache file's. Those are let go of, a slice of a file
at a time: soon after the last push of it, or sooner where memory is short, and again until none is
left. For the kernel keeps a page until the disk has it; to be told to let go of it makes it begin
to write, which is why a load that is over in a moment is not disturbed by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SLICE = 32 << 20
"""Bytes: letting go of them takes 2 ms."""

SOON = 5.0
"""Seconds from the last push of a slice on: a quick load is over by then."""

AGAIN = 1.0
"""Seconds until one is let go of the second time; then twice as many, and so on."""

TRIES = 6
"""Times after which a slice is left to the kernel: its disk is very slow, or somebody reads it."""

Place = tuple[int, int]
"""A file's node, and the number of a slice."""


@dataclass(slots=True)
class _Slice:
    due: float
    tries: int = 0


class Behind:
    """What was pushed a moment ago."""

    def __init__(self) -> None:
        self._slices: dict[Place, _Slice] = {}
        """In the order of their first pushes."""

    def __len__(self) -> int:
        return len(self._slices)

    def pushed(self, node: int, start: int, stop: int, now: float) -> None:
        """Take note that ``[start, stop)`` of a file was pushed at *now*."""
        for number in range(start // SLICE, -(-stop // SLICE)):
            one = self._slices.setdefault((node, number), _Slice(0.0))
            one.due, one.tries = now + SOON, 0

    def due(self, now: float, limit: int) -> Sequence[Place]:
        """Return what to let go of at *now*, where *limit* bytes may be in memory twice."""
        excess = len(self._slices) - limit // SLICE
        fresh = [place for place, one in self._slices.items() if not one.tries]
        early = set(fresh[: max(0, excess)])
        return [place for place, one in self._slices.items() if one.due <= now or place in early]

    def let_go(self, place: Place, left: int, now: float) -> None:
        """Take note that a slice was let go of, and that *left* bytes of it stayed."""
        one = self._slices.get(place)
        if one is None:
            return
        one.tries += 1
        one.due = now + AGAIN * 2 ** (one.tries - 1)
        if not left or one.tries >= TRIES:
            del self._slices[place]
