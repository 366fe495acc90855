"""Part: what a child knows of one task, and the books that it keeps of it.

Pieces are bitmaps (`runs`). What is to be done gathers in a `Choice`, which `choosing` hands out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from p2p import messages, runs
from p2p.messages import Description

from .absence import Absence
from .book import Book
from .choice import Ask, Choice, Patience
from .deputy import Deputy
from .hunger import Hunger
from .link import Link, Request
from .untold import Untold


@dataclass(slots=True)
class Demand:
    """A piece that is wanted now or soon."""

    priority: int
    since: float
    told: bool = False
    """The scheduler was told."""
    check: float = float("inf")
    """When the scheduler's answer, or what came of it, is overdue."""
    answered: bool = False


class Part:
    """A child's part in one task."""

    bulk = False
    held = 0
    offers = True
    """What comes can be had from this host, and counts as held."""
    _scheduled = False
    _readers = 0
    """Pieces of priority READER."""
    _granted = 0
    _seen = 0
    """Pieces that any host ever said to have."""
    _newest = 0
    """Those of them that appeared while one looked on: still rare, wherever that is."""
    _hinted = 0
    """Pieces that a hint named, until they are held: the scheduler waits to hear of them."""
    _latency = 0.0
    """Seconds from request to answer, of all hosts, smoothed."""
    _under_way = 0.0
    """Bytes that are on their way where nothing waits, from all hosts."""
    _look = float("inf")
    """When something of the hosts themselves is due: a rest ends, a session, a report."""

    def __init__(
        self,
        handle: int,
        task: bytes,
        description: Description,
        random: Random,
        patience: Patience | None = None,
    ) -> None:
        self.handle = handle
        self.task = task
        self.description = description
        self.full = runs.full(description.pieces)
        self.known = self.full if description.kind != "file" else 0
        """Pieces whose digest is known."""
        self.links: dict[bytes, Link] = {}
        self.patience = patience or Patience()
        self._size = max(1, description.size // max(1, description.pieces))
        self._random = random
        self._demands: dict[int, Demand] = {}
        self._ahead: dict[int, None] = {}
        """Pieces of priority AHEAD, in order."""
        self._book = Book()
        self._grants: dict[int, float] = {}
        """Open ones and their ends."""
        self._hunger = Hunger(self.patience)
        self._untold = Untold()
        self._deputy = Deputy()
        self._absence = Absence()
        self._failed: dict[bytes, None] = {}
        self._choice = Choice()

    @property
    def complete(self) -> bool:
        """Whether every piece is held."""
        return self.held == self.full

    # Pieces

    def _arrive(self, piece: int, now: float) -> None:
        if piece in self._book.by_piece:
            self._cancel(piece)
        bit = 1 << piece
        if not self.offers:
            self._return(piece, "not offered yet")
        demand = self._demands.get(piece)
        taken = self._deputy.taken
        if (self._granted | self._hinted | taken) & bit or (demand and demand.told):
            self._untold.hurry(now)
            self._look = now
            self._hinted &= ~bit
        if self._granted & bit or self._demands:
            self._got(piece)
        self._gain(bit, now)

    def _got(self, piece: int) -> None:
        """Forget what was in train for a piece."""
        self._forget(piece)
        if self._granted >> piece & 1:
            self._granted &= ~(1 << piece)
            self._grants.pop(piece, None)

    def _gain(self, bits: int, now: float) -> None:
        if not bits or not self.offers:
            return
        self.held |= bits
        self._book.asked &= ~bits
        self._untold.gain(bits)
        if self.held == self.full:
            self._untold.hurry(now)
            self._look = now
        else:
            self._untold.hurry(now + self.patience.gather)

    def _forget(self, piece: int) -> Demand | None:
        self._readers &= ~(1 << piece)
        self._ahead.pop(piece, None)
        return self._demands.pop(piece, None)

    def _answered(self, piece: int, check: float) -> None:
        demand = self._demands.get(piece)
        if demand is not None:
            demand.answered, demand.check = True, check

    def _recheck(self, piece: int, now: float, wait: float) -> None:
        """Ask the scheduler anew: what was under way for a piece failed."""
        demand = self._demands.get(piece)
        if demand is not None:
            demand.told, demand.check = False, now + wait

    def _read(self, piece: int) -> None:
        """Take a piece from the origin."""
        self._book.read(piece)
        self._choice.origin.append(piece)

    def _decoded(self, pieces: list[int]) -> int:
        return runs.decode(pieces, self.description.pieces)

    # Requests and grants

    def _fail(self, number: int, now: float, keep: bool = False) -> Request | None:
        """Close a request that came to nothing; a grant is returned unless it is to be kept."""
        request = self._book.close(number)
        if request is None:
            return None
        if not keep:
            self._give_back(request.link, request.piece)
            self._recheck(request.piece, now, 0.0)
        self._look = now
        return request

    def _give_back(self, link: Link, piece: int) -> None:
        """Return a grant whose source did not send it; there may be none."""
        bit = 1 << piece
        if link.granted & bit:
            link.granted &= ~bit
            link.extra &= ~bit
            self._return(piece, "failed")

    def _return(self, piece: int, reason: str) -> None:
        if self._granted >> piece & 1:
            self._granted &= ~(1 << piece)
            self._grants.pop(piece, None)
            self._choice.control.append(messages.Return(self.handle, [piece, piece + 1], reason))

    def _cancel(self, piece: int) -> None:
        """Take back every open request of a piece."""
        for request in self._book.of(piece):
            self._book.close(request.number)
            self._choice.cancels.append(ask_of(request))

    def _give_up(self, link: Link, now: float) -> None:
        """Take back whatever is open at a host."""
        for request in list(link.open.values()):
            self._fail(request.number, now)
            self._choice.cancels.append(ask_of(request))

    def _rest(self, link: Link, now: float, seconds: float) -> None:
        """Do not ask a host for a while."""
        link.rests = max(link.rests, now + seconds)
        self._look = now

    def _report(self, link: Link, now: float) -> None:
        report = link.report(self.handle, now)
        if report is not None and self._scheduled:
            self._choice.control.append(report)

    # Hosts

    def _usual(self) -> float:
        """Return the mean latency of those that are known."""
        means = [link.pace.mean for link in self.links.values() if link.pace.mean]
        return sum(means) / len(means) if means else 0.05

    def _stall(self, link: Link) -> float:
        """Return how long a request may stay without an answer."""
        late = link.pace.late
        if not late:
            late = max((other.pace.late for other in self.links.values()), default=0.0)
        if not late:
            return self.patience.stall_first
        return max(self.patience.stall_least, 4 * late)

    def _able(self, now: float) -> int:
        """Return the pieces that somebody can be asked for."""
        able = 0
        for link in self.links.values():
            if link.ready and link.rests <= now:
                able |= link.can
        return able & self.known

    def _best(self, piece: int, now: float, but: Iterable[Link] = ()) -> Link | None:
        """Return the host that will answer first, of those that have a piece."""
        best, least = None, float("inf")
        for link in self.links.values():
            if not link.ready or link.rests > now or not link.can >> piece & 1 or link in but:
                continue
            expected = (len(link.open) + 1) * (link.pace.mean or self._usual())
            if expected < least:
                best, least = link, expected
        return best


def ask_of(request: Request) -> Ask:
    """Return what was asked for by *request*."""
    return Ask(request.number, request.link.parent.host, request.piece, request.priority)
