"""What falls to a child as a deputy: which pieces, from which source, without a scheduler."""

from __future__ import annotations

from dataclasses import dataclass

from p2p import runs
from p2p.messages import Parent, Parents

STANDING = 8
"""Pieces that all deputies of a task take from the source at once; `grants.WINDOW_FIRST`."""


@dataclass(slots=True)
class Deputy:
    """A child's turn among the deputies of a task; most have none."""

    source: Parent | None = None
    """Where pieces are taken from while there is no scheduler; None: the origin."""
    turns: int = 0
    """Among how many; 0: nobody said that this host is to."""
    share: int = 0
    """Which pieces fall to this host then."""
    stands: float = float("inf")
    """From when on it takes them."""
    taken: int = 0
    """Those that it took so."""

    def appoint(self, body: Parents, pieces: int, asked: int) -> int:
        """Note what a scheduler says of it; return what was taken and not *asked* for yet."""
        given_up = self.taken & ~asked
        self.taken &= asked
        self.source, self.turns, self.stands = body.source, body.turns, float("inf")
        self.share = runs.of(range(body.turn, pieces, body.turns) if body.turns else ())
        return given_up

    def next(self, known: int, coming: int) -> int:
        """Return what to take now, in rising order, of what is not *known* to be anywhere.

        *coming* are all pieces on their way here.
        """
        most = -(-STANDING // self.turns) - (self.taken & coming).bit_count()
        return runs.lowest(self.share & ~(known | self.taken), most)
