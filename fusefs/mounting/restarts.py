"""Whether a dead daemon is followed by another: pure, fed with deaths.

The kernel sends a dead daemon's requests to the next one, so a request that kills would come for
ever. A daemon killed from outside after it had got on with its work is simply replaced; a crash, or
a death before any progress, is counted, and the fifth in 30 seconds ends the mount.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Death:
    """How one daemon ended."""

    at: float
    killed: bool
    """By a signal that comes from outside, not by a crash of its own or for not answering."""
    progress: bool
    """It had answered more than what the kernel sent it again."""
    reason: str

    @property
    def counts(self) -> bool:
        """Say whether another such death brings the mount nearer to its end."""
        return not (self.killed and self.progress)


class Restarts:
    """Counts deaths and says what follows each."""

    LIMIT = 5
    WINDOW = 30.0
    """Seconds."""
    FIRST_DELAY = 0.05
    """Seconds before a daemon that follows a counted death; doubles with each."""

    def __init__(self) -> None:
        self._counted: deque[Death] = deque(maxlen=self.LIMIT)
        self.total = 0

    def __str__(self) -> str:
        return f"{self.LIMIT} daemons died within {self.WINDOW:.0f} s"

    def died(self, death: Death) -> float | None:
        """Return the seconds to wait before the next daemon; None: there must be no next one."""
        self.total += 1
        if not death.counts:
            return 0.0
        self._counted.append(death)
        recent = [past for past in self._counted if death.at - past.at <= self.WINDOW]
        if len(recent) >= self.LIMIT:
            return None
        return self.FIRST_DELAY * (1 << (len(recent) - 1))
