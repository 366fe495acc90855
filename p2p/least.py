"""The least of what was measured lately."""

from __future__ import annotations

from dataclasses import dataclass

PERIOD = 30.0
"""Seconds; what is older than two of them is forgotten, because routes and links change."""


@dataclass(slots=True)
class Least:
    """The least value of the last one to two periods."""

    value: float = 0.0
    """0: nothing was measured yet."""
    _lately: float = 0.0
    _since: float = 0.0

    def learn(self, value: float, now: float) -> None:
        """Take a measurement."""
        if not self.value:
            self.value, self._lately, self._since = value, value, now
            return
        if now - self._since > PERIOD:
            self.value, self._lately, self._since = min(self._lately, value), value, now
            return
        if value < self._lately:
            self._lately = value
            if value < self.value:
                self.value = value
