"""Bucket: a bound on bytes per second that several transfers share."""

from __future__ import annotations

import trio

_BURST = 0.05
"""Seconds' worth of bytes that may come at once after a pause."""

_LEAST = 4 << 10
"""Bytes of one step: less would cost more than it evens out."""


class Bucket:
    """Lets *rate* bytes per second pass, in the order in which they ask.

    Tasks: of the event loop; ``_free_at`` changes between awaits only.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.step = max(_LEAST, int(rate * _BURST))
        """Bytes that are best taken at once."""
        self._free_at = -1.0

    async def take(self, count: int) -> None:
        """Return when *count* more bytes may have passed."""
        now = trio.current_time()
        self._free_at = max(self._free_at, now - _BURST) + count / self.rate
        if self._free_at > now:
            await trio.sleep_until(self._free_at)
