"""The mean of what was measured, how far it strays, and what is too long by that."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Mean:
    """A smoothed mean and mean deviation, by the rule of TCP."""

    value: float = 0.0
    """0: nothing was measured yet."""
    _deviation: float = 0.0

    def learn(self, value: float) -> None:
        """Take a measurement."""
        if not self.value:
            self.value, self._deviation = value, value / 2
            return
        self._deviation += (abs(value - self.value) - self._deviation) / 4
        self.value += (value - self.value) / 8

    def lasts(self, first: float, least: float, most: float) -> float:
        """Return what is too long: *first* where nothing is known, *least* to *most* else."""
        if not self.value:
            return first
        return min(most, max(least, 2 * self.value + 4 * self._deviation))
