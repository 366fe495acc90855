"""Alone: what a child of one task does while there is no scheduler, pure.

It goes on with the parents that it knows. What has not left the source yet is taken by *deputies*:
the scheduler told a few of its hosts beforehand which pieces fall to whom when it is gone, so that
each still leaves the source about once. Where nothing comes that way for a while a child reads the
origin itself, pieces here and there; not all children at the same moment, because what one has read
the others get from it.
"""

from __future__ import annotations

from p2p import messages, runs

from .choice import READER
from .deputy import STANDING
from .link import Link
from .part import Demand
from .tidings import Tidings

READS_UNASKED = 2
"""Pieces that a bulk child reads from the origin at once where no scheduler gives grants."""


class Alone(Tidings):
    """The part, as it goes on without a scheduler."""

    def _stands_for(self, link: Link) -> bool:
        """Whether this host, as a deputy, has to know what left that seed."""
        return not self._scheduled and bool(self._deputy.turns) and link.parent.kind == "seed"

    def _stand_in(self, now: float) -> None:
        """Take what falls to this host from the source, in rising order."""
        if not (self._deputy.turns and self.bulk and self.offers):
            return
        coming = self._granted | self._book.asked
        unknown = self.full & ~self.known  # their digests are
        mine = self._deputy.next(self._seen | self.held | coming | unknown, coming)
        if mine:
            self._help_out(mine, self.patience.linger, now)

    def _help_out(self, pieces: int, lasts: float, now: float) -> None:
        """Take pieces from the source, which may take *lasts* seconds."""
        source = self._deputy.source
        link = self.links.get(source.host) if source else None
        if link is not None and link.rests > now + (lasts if link.ready else 0.0):
            source = None  # it is gone too
        self._grant(messages.Grant(self.handle, runs.encode(pieces), source, lasts), now)
        self._deputy.taken |= pieces

    def _get(self, piece: int, demand: Demand, now: float) -> None:
        """Take a piece that is wanted and that no parent has from the source.

        A deputy does so at once with what falls to it; it is waited for where there is one.
        """
        reader = demand.priority == READER
        wait = max(self.patience.reader if reader else self.patience.others, 4 * self._latency)
        if self._deputy.share >> piece & 1 or (reader and not self._absence.spare):
            wait = 0.0
        due = max(demand.since, self._absence.since) + wait
        if not reader and (self._deputy.taken & self._book.asked).bit_count() >= STANDING:
            due = max(due, now + self.patience.stands)
        if self._granted >> piece & 1:  # it will be asked for when there is a session
            due = self._grants[piece]
        if now < due:
            demand.check = due
        elif self._deputy.source is None:
            self._read(piece)
        else:
            self._help_out(1 << piece, self.patience.source, now)

    @property
    def _helps(self) -> float:
        """Return from when on a child reads the origin itself."""
        if not self.bulk or len(self._book.reading) >= READS_UNASKED:
            return float("inf")
        quiet = max(self._hunger.since, self._absence.came)
        return quiet + self.patience.alone * self._absence.patient

    def _help_itself(self, missing: int, now: float) -> None:
        """Read the origin, because no scheduler says who is to: here and there, as others do."""
        absence = self._absence
        absence.helping |= now >= self._helps
        while absence.helping and missing and len(self._book.reading) < READS_UNASKED:
            piece = self._pick(missing)
            missing &= ~(1 << piece)
            self._read(piece)

    def _pick(self, bits: int) -> int:
        """Return the newest piece of a bitmap, else one at random; those after gaps are likelier.

        Pieces leave the source in rising order, so the highest that appeared lately is the newest.
        """
        new = bits & self._newest
        if new:
            return new.bit_length() - 1
        start = int(self._random.random() * bits.bit_length())
        later = bits >> start
        if later:
            return start + (later & -later).bit_length() - 1
        return (bits & -bits).bit_length() - 1
