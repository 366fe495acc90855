"""What a scheduler has not been told of what is held here, and when it will be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Untold:
    """What is to go into the next HELD."""

    fresh: int = 0
    """Pieces that are held."""
    dropped: int = 0
    """Pieces that are not held any more."""
    due: float = float("inf")
    """When to tell."""

    def gain(self, bits: int) -> None:
        """Add what is held now."""
        self.fresh |= bits
        self.dropped &= ~bits

    def lose(self, bits: int) -> None:
        """Add what is not."""
        self.fresh &= ~bits
        self.dropped |= bits

    def hurry(self, when: float) -> None:
        """Tell at *when*, if not before."""
        if when < self.due:
            self.due = when

    def clear(self) -> None:
        """Forget what was told."""
        self.fresh = self.dropped = 0
        self.due = float("inf")
