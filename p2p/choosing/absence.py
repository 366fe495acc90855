"""The time without a scheduler: whom else a child knows then, and when it helps itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from p2p.messages import Parent


@dataclass(slots=True)
class Absence:
    """A child's patience while there is no scheduler."""

    since: float = float("-inf")
    """When the session with it ended."""
    spare: Sequence[Parent] = ()
    """Parents then, where only what is read is taken."""
    came: float = 0.0
    """When a piece last came from a peer, a deputy's own not counted."""
    helping: bool = False
    """Nothing came for so long that it reads what it lacks itself until a scheduler is there."""
    patient: float = 1.0
    """How many times the usual time it waits for that: not all children read at once."""

    def begin(self, now: float) -> None:
        """Note that the scheduler is gone."""
        self.since, self.patient = now, 1.0

    def pause(self, now: float) -> None:
        """Read nothing for a while: the origin could not be had."""
        self.helping, self.came = False, now
