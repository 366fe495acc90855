"""Which piece from whom next: what a child of one task decides, pure.

Whoever drives a `Chooser` tells it what happened, each time with `now`, then calls `choose` and
does what the `Choice` says; it calls again after whatever it tells, and at `wake`. The client does
so with sockets, the simulator without: there is one policy.

The order of things: pieces that readers wait for, in the order of asking, at once and beyond every
window; then those asked for ahead, in order; then, in bulk mode, the rest: rarest first among the
parents' pieces, of those the newest to appear, else one at random. A parent has two requests open
and all of them five, more where rate times latency says that more are under way (`pace`). What
nobody known has is a WANT to the scheduler, which answers with a hint, a grant, or that somebody is
getting it.

An answer that is later than 95 of 100 of its parent are gets a second request elsewhere, for
readers always and for others at the end, when nothing else is left to ask for. A request without an
answer for much longer is given up, and a parent with three of those is no use. Where the scheduler
does not answer, the origin is asked after half a second for a reader, five otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from . import messages, runs
from .book import Book
from .choice import AHEAD, BULK, READER, Ask, Choice, Patience
from .hunger import Hunger
from .link import Link, Request
from .messages import Body, Description, Parent

__all__ = ["AHEAD", "BULK", "READER", "Ask", "Choice", "Chooser", "Patience"]

READS_UNASKED = 2
"""Pieces that a bulk child reads from the origin at once where no scheduler gives grants."""


@dataclass(slots=True)
class _Demand:
    """A piece that is wanted now or soon."""

    priority: int
    since: float
    told: bool = False
    """The scheduler was told."""
    check: float = float("inf")
    """When the scheduler's answer, or what came of it, is overdue."""
    answered: bool = False


class Chooser:
    """Everything that a child knows about one task."""

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
        self.bulk = False
        self.full = runs.full(description.pieces)
        self.held = 0
        self.offers = True
        """What comes can be had from this host, and counts as held."""
        self.known = self.full if description.kind != "file" else 0
        """Pieces whose digest is known."""
        self.links: dict[bytes, Link] = {}
        self.patience = patience or Patience()
        self._size = max(1, description.size // max(1, description.pieces))
        self._random = random
        self._scheduled = False
        self._demands: dict[int, _Demand] = {}
        self._readers = 0
        self._ahead: dict[int, None] = {}
        """Pieces of priority AHEAD, in order."""
        self._book = Book()
        self._grants: dict[int, float] = {}
        """Open ones and their ends."""
        self._granted = 0
        self._seen = 0
        """Pieces that any host ever said to have."""
        self._newest = 0
        """Those of them that appeared while one looked on: still rare, wherever that is."""
        self._hinted = 0
        """Pieces that a hint named, until they are held: the scheduler waits to hear of them."""
        self._fresh = 0
        """Held, and the scheduler not told."""
        self._dropped = 0
        self._flush = float("inf")
        self._hunger = Hunger(self.patience)
        self._under_way = 0.0
        """Bytes that are on their way where nothing waits, from all hosts."""
        self._look = float("inf")
        """When something of the hosts themselves is due: a rest ends, a session, a report."""
        self._failed: dict[bytes, None] = {}
        self._choice = Choice()

    # What the reader, the cache and the origin tell

    def want(self, piece: int, priority: int, now: float) -> None:
        """Get a piece for a reader, or ahead of one; `priority` READER or AHEAD."""
        if self.held >> piece & 1:
            return
        demand = self._demands.get(piece)
        if demand is None:
            demand = self._demands[piece] = _Demand(priority, now)
        elif priority < demand.priority:
            demand.priority, demand.told = priority, False
        if demand.priority == READER:
            self._readers |= 1 << piece
            self._ahead.pop(piece, None)
        else:
            self._ahead[piece] = None

    def unwant(self, piece: int) -> None:
        """Take back a `want`."""
        demand = self._forget(piece)
        if demand is None:
            return
        if demand.told and not self._granted >> piece & 1:
            self._choice.control.append(messages.Unwant(self.handle, [piece, piece + 1]))
        if not self.bulk:
            self._cancel(piece)

    def want_all(self, bulk: bool) -> None:
        """Get all of the task, or no longer; to be said before `join`."""
        self.bulk = bulk

    def holds(self, bits: int, now: float) -> None:
        """Note pieces that came another way: they were there, or another process got them."""
        for piece in runs.numbers(bits & ~self.held & self._book.asked):
            self._cancel(piece)
        for piece in runs.numbers(bits & (self._granted | runs.of(self._demands))):
            self._got(piece)
        self._gain(bits & ~self.held, now)

    def announce(self, now: float) -> None:
        """Tell the scheduler at once what is held, instead of gathering."""
        if self._fresh:
            self._flush = now

    def dropped(self, bits: int, now: float) -> None:
        """Note pieces that are not held any more."""
        bits &= self.held
        self.held &= ~bits
        self._fresh &= ~bits
        self._dropped |= bits
        self._flush = min(self._flush, now)

    def digests(self, bits: int) -> None:
        """Note pieces whose digest is known now."""
        self.known |= bits

    def fetched(self, piece: int, now: float) -> None:
        """Note that a piece came from the origin and is held."""
        self._book.reading.pop(piece, None)
        self._arrive(piece, now)

    def unfetched(self, piece: int, reason: str, now: float) -> None:
        """Note that a piece could not be had from the origin."""
        self._book.reading.pop(piece, None)
        self._book.release(piece)
        self._return(piece, reason)
        self._recheck(piece, now, self.patience.reader)

    # What the scheduler tells

    def join(self, now: float) -> list[Body]:
        """Return all that a scheduler has to be told when there is a session with it."""
        self._scheduled = True
        parts = runs.parts(self.held)
        said: list[Body] = [
            messages.Join(self.handle, self.task, self.description, next(parts), self.bulk)
        ]
        said += [messages.Held(self.handle, part) for part in parts]
        self._fresh = self._dropped = 0
        self._flush = float("inf")
        self._grants.clear()
        self._granted = 0
        for demand in self._demands.values():
            demand.told = demand.answered = False
            demand.check = float("inf")
        return said

    def unscheduled(self, now: float) -> None:
        """Note that the session with the scheduler is gone."""
        self._scheduled = False
        for demand in self._demands.values():
            demand.told = False

    def take(self, body: Body, now: float) -> None:
        """Take what the scheduler said about this task, or that it set a host aside."""
        if isinstance(body, messages.Parents):
            self._parents(body.parents, now)
        elif isinstance(body, messages.Grant):
            self._grant(body, now)
        elif isinstance(body, messages.Hint):
            self._hint(body, now)
        elif isinstance(body, messages.Wait):
            for piece in runs.numbers(self._decoded(body.pieces)):
                self._answered(piece, now + body.seconds)
        elif isinstance(body, messages.Aside):
            link = self.links.get(body.host)
            if link is not None:
                self._rest(link, now, body.seconds)
                self._give_up(link, now)

    # What parents tell

    def linked(self, host: bytes, now: float) -> None:
        """Note that there is a session with a host, and that it was told FOLLOW."""
        link = self.links.get(host)
        if link is not None:
            link.ready, link.have, link.news = True, link.extra, now
            self._look = now

    def unlinked(self, host: bytes, now: float) -> None:
        """Note that the session with a host is gone, or could not be had."""
        link = self.links.get(host)
        if link is None:
            return
        link.ready, link.have, link.dialled = False, 0, -1.0
        self._rest(link, now, self.patience.rest)
        self._give_up(link, now)
        for piece in runs.numbers(link.granted & self._granted):
            self._return(piece, "no session with the source")
            self._recheck(piece, now, 0.0)
        for piece in runs.numbers(link.extra & ~link.granted):
            self._recheck(piece, now, 0.0)
        link.extra = link.granted = 0
        self._failed[host] = None
        self._hunger.hurry(now)

    def have(self, host: bytes, body: messages.Have, now: float) -> None:
        """Take what a host has, or what changed of it."""
        self.offered(host, self._decoded(body.add), self._decoded(body.drop), body.whole, now)

    def offered(self, host: bytes, add: int, drop: int, whole: bool, now: float) -> bool:
        """Take the same as bitmaps; return whether it may change what is asked for."""
        link = self.links.get(host)
        if link is None:
            return False
        link.denied &= add if whole else ~drop
        link.have = add if whole else (link.have | add) & ~drop
        if not add:
            return False
        link.news = now
        if not whole:
            self._newest |= add & ~self._seen
        self._seen |= add
        if not add & ~(self.held | self._book.asked) or not (link.regular or link.extra & add):
            return False
        return len(self._book.open) < self.patience.total or bool(self._demands)

    def arrived(self, number: int, size: int, now: float) -> None:
        """Note that a piece came, was verified, and is held."""
        request = self._book.close(number)
        if request is None:
            return
        link = request.link
        pace = link.pace
        self._under_way -= pace.under_way
        pace.learn(request.sent, size, now)
        self._under_way += pace.under_way
        link.strikes = 0
        link.served += 1
        link.gave += 1
        link.size += size
        link.seconds += now - request.sent
        self._arrive(request.piece, now)

    def absent(self, number: int, now: float) -> None:
        """Note that a host does not have what it was asked for."""
        request = self._fail(number, now)
        if request is None:
            return
        link, bit = request.link, 1 << request.piece
        link.have &= ~bit
        if not link.extra & bit:  # it claims it itself, not by a hint of the scheduler's
            link.denied_since = link.denied_since if link.denied else now
            link.denied |= bit
        if link.extra & bit:  # the scheduler would name it for this piece again, and again
            link.extra &= ~bit
            self._failed[link.parent.host] = None
            self._hunger.hurry(now)

    def busy(self, number: int, retry_after: float, now: float) -> None:
        """Note that a host has no slot."""
        request = self._fail(number, now, keep=True)
        if request is not None:
            self._rest(request.link, now, max(0.01, retry_after))

    def failed(self, number: int, reason: str, now: float) -> None:
        """Note that a seed could not get it."""
        request = self._fail(number, now)
        if request is not None:
            request.link.have &= ~(1 << request.piece)

    def corrupt(self, number: int, now: float) -> None:
        """Note that what came did not match its digest."""
        request = self._fail(number, now)
        if request is None:
            return
        link = request.link
        link.have &= ~(1 << request.piece)
        link.corrupt += 1
        self._rest(link, now, self.patience.rest)
        self._choice.complaints.append((link.parent.host, request.piece))
        self._failed[link.parent.host] = None
        self._hunger.hurry(now)
        self._report(link, now)

    # What to do

    def choose(self, now: float) -> Choice:
        """Return what is to be done; what is decided here counts as done."""
        if self._book.alarm <= now:
            self._late(now)
        if self._look <= now:
            self._tend(now)
        if self._demands:
            self._serve(now)
        if self.bulk or self._ahead:
            self._fill(now)
        if self._scheduled:
            if self._flush <= now:
                self._say_held()
            if self._hunger.due <= now:
                self._say_need(now)
        choice, self._choice = self._choice, Choice()
        choice.wake = self._wake(now)
        return choice

    @property
    def complete(self) -> bool:
        """Whether every piece is held."""
        return self.held == self.full

    # Answers

    def _arrive(self, piece: int, now: float) -> None:
        if piece in self._book.by_piece:
            self._cancel(piece)
        bit = 1 << piece
        if not self.offers:
            self._return(piece, "not offered yet")
        if (self._granted | self._hinted) & bit:
            self._flush = now
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
        self._fresh |= bits
        self._dropped &= ~bits
        if self.held == self.full:
            self._flush = now
            self._look = now
        elif self._flush > now + self.patience.gather:
            self._flush = now + self.patience.gather

    def _forget(self, piece: int) -> _Demand | None:
        self._readers &= ~(1 << piece)
        self._ahead.pop(piece, None)
        return self._demands.pop(piece, None)

    def _fail(self, number: int, now: float, keep: bool = False) -> Request | None:
        """Close a request that came to nothing; a grant is returned unless it is to be kept."""
        request = self._book.close(number)
        if request is None:
            return None
        link, bit = request.link, 1 << request.piece
        if link.granted & bit and not keep:
            link.granted &= ~bit
            link.extra &= ~bit
            self._return(request.piece, "failed")
        if not keep:
            self._recheck(request.piece, now, 0.0)
        self._look = now
        return request

    def _return(self, piece: int, reason: str) -> None:
        if self._granted >> piece & 1:
            self._granted &= ~(1 << piece)
            self._grants.pop(piece, None)
            self._choice.control.append(messages.Return(self.handle, [piece, piece + 1], reason))

    def _cancel(self, piece: int) -> None:
        """Take back every open request of a piece."""
        for request in self._book.of(piece):
            self._book.close(request.number)
            self._choice.cancels.append(_ask(request))

    def _give_up(self, link: Link, now: float) -> None:
        """Take back whatever is open at a host."""
        for request in list(link.open.values()):
            self._fail(request.number, now)
            self._choice.cancels.append(_ask(request))

    def _rest(self, link: Link, now: float, seconds: float) -> None:
        """Do not ask a host for a while."""
        link.rests = max(link.rests, now + seconds)
        self._look = now

    # The scheduler's words

    def _parents(self, parents: Iterable[Parent], now: float) -> None:
        given = {parent.host: parent for parent in parents}
        for host, link in self.links.items():
            link.regular = host in given
        for parent in given.values():
            self._link(parent, now).regular = True
        self._look = now

    def _link(self, parent: Parent, now: float) -> Link:
        link = self.links.get(parent.host)
        if link is None:
            link = self.links[parent.host] = Link(parent, news=now, reported=now)
        elif link.parent.address != parent.address:
            link.parent = parent
        return link

    def _grant(self, body: messages.Grant, now: float) -> None:
        bits = self._decoded(body.pieces)
        if bits & self.held:
            # Returned, it would be granted here again: the scheduler has not heard of it yet.
            self._fresh |= bits & self.held
            self._flush = now
        bits &= ~self.held
        self._granted |= bits
        for piece in runs.numbers(bits):
            self._grants[piece] = now + body.lasts
            self._answered(piece, now + body.lasts)
        if body.source is None:
            for piece in runs.numbers(bits & ~self._book.asked):
                self._read(piece)
        elif bits:
            link = self._link(body.source, now)
            link.granted |= bits
            link.extra |= bits
            link.have |= bits
        self._look = now

    def _hint(self, body: messages.Hint, now: float) -> None:
        bits = self._decoded(body.pieces) & ~self.held
        link = self._link(body.parent, now)
        link.extra |= bits
        link.have |= bits
        self._hinted |= bits
        for piece in runs.numbers(bits):
            self._answered(piece, now + self._stall(link))
        self._look = now

    def _answered(self, piece: int, check: float) -> None:
        demand = self._demands.get(piece)
        if demand is not None:
            demand.answered, demand.check = True, check

    def _recheck(self, piece: int, now: float, wait: float) -> None:
        """Ask the scheduler anew: what was under way for a piece failed."""
        demand = self._demands.get(piece)
        if demand is not None:
            demand.told, demand.check = False, now + wait

    def _decoded(self, pieces: list[int]) -> int:
        return runs.decode(pieces, self.description.pieces)

    # Hosts

    def _tend(self, now: float) -> None:
        """See to the sessions: who is to be dialled, left, asked for a grant, told of."""
        self._look = now + self.patience.linger
        self._under_way = 0.0
        for host, link in list(self.links.items()):
            self._under_way += link.pace.under_way
            if now < link.rests < self._look:
                self._look = link.rests
            if link.denied:
                self._doubt(link, now)
            if link.regular or link.extra & ~self.held:
                if link.dialled < 0 and link.rests <= now:
                    link.dialled = now
                    self._choice.connect.append(link.parent)
                if link.granted and link.ready and link.rests <= now:
                    self._collect(link, now)
                if link.served and now - link.reported >= self.patience.report:
                    self._report(link, now)
            elif not link.open:
                self._part(host, link, now)

    def _doubt(self, link: Link, now: float) -> None:
        """Tell of a host that claims what it does not have; one that evicts withdraws in time."""
        due = link.denied_since + self.patience.withdrawal
        if now < due:
            self._look = min(self._look, due)
            return
        count, link.denied = link.denied.bit_count(), 0
        if count >= self.patience.hollow:
            link.absent += count
            self._report(link, now)

    def _part(self, host: bytes, link: Link, now: float) -> None:
        """Leave a host that has been of no use for a while, then forget it."""
        if link.dialled >= 0:
            if now - max(link.news, link.dialled) >= self.patience.linger:
                self._report(link, now)
                self._choice.leave.append(host)
                link.ready, link.dialled, link.have = False, -1.0, 0
        elif link.rests <= now:
            del self.links[host]

    def _collect(self, link: Link, now: float) -> None:
        """Ask a source for what was granted from it."""
        for piece in runs.numbers(link.granted & self._granted & ~self._book.asked):
            demand = self._demands.get(piece)
            self._ask(link, piece, demand.priority if demand else BULK, now)

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

    # Asking

    def _ask(
        self, link: Link, piece: int, priority: int, now: float, doubled: bool = False
    ) -> None:
        request = self._book.add(link, piece, priority, now)
        request.doubled = doubled
        late = link.pace.late
        if late:
            self._book.watch(request, now + late, now + max(self.patience.stall_least, 4 * late))
        else:
            self._book.watch(request, now + 2 * self._usual(), now + self._stall(link))
        self._choice.asks.append(Ask(request.number, link.parent.host, piece, priority))

    def _read(self, piece: int) -> None:
        """Take a piece from the origin."""
        self._book.read(piece)
        self._choice.origin.append(piece)

    def _serve(self, now: float) -> None:
        """See to what readers wait for."""
        bits = self._readers & ~self._book.asked
        wanted = 0
        for piece in runs.numbers(bits):
            link = self._best(piece, now) if self.known >> piece & 1 else None
            if link is not None:
                self._ask(link, piece, READER, now)
            elif self._missed(piece, self._demands[piece], now):
                wanted |= 1 << piece
        self._say_want(wanted, True)

    def _missed(self, piece: int, demand: _Demand, now: float) -> bool:
        """Return whether to tell the scheduler of a piece that nobody has; or go to the origin."""
        patience = self.patience.reader if demand.priority == READER else self.patience.others
        if not self._scheduled:
            if now >= demand.since + (0.0 if demand.priority == READER else patience):
                self._read(piece)
            else:
                demand.check = demand.since + patience
            return False
        if not demand.told:
            demand.told, demand.answered, demand.check = True, False, now + patience
            return True
        if now >= demand.check:
            if not demand.answered:
                self._read(piece)
                return False
            demand.answered, demand.check = False, now + patience
            self._failed.update(dict.fromkeys(self._failing(piece)))
            self._hunger.hurry(now)
            return True
        return False

    def _failing(self, piece: int) -> list[bytes]:
        """Return the hosts that were to send a piece and have not."""
        return [
            host for host, link in self.links.items() if link.extra >> piece & 1 and not link.ready
        ]

    def _say_want(self, bits: int, urgent: bool) -> None:
        if bits:
            for part in runs.parts(bits):
                self._choice.control.append(messages.Want(self.handle, part, urgent))

    def _fill(self, now: float) -> None:
        """Ask for pieces ahead and in bulk, as far as the windows go."""
        room = int(self._under_way / self._size + 2.5)
        room = max(self.patience.total, min(self.patience.total_most, room))
        room -= len(self._book.open)
        if room > 0 and self._ahead:
            room = self._prepare(room, now)
        if not self.bulk:
            return
        if room > 0:
            room = self._spread(room, now)
        if room > 0:
            self._starve(now)
        else:
            self._hunger.feed(now)

    def _spread(self, room: int, now: float) -> int:
        """Ask for pieces in bulk, rarest first; return how much room is left."""
        missing = self.full & ~(self.held | self._book.asked | self._granted) & self.known
        able: list[tuple[Link, int]] = []
        once = twice = 0
        for link in self.links.values():
            if link.ready and link.rests <= now:
                has = missing & (link.have if link.regular else link.have & link.extra)
                if has:
                    able.append((link, has))
                    twice |= once & has
                    once |= has
        rare = once & ~twice
        while room > 0 and able:
            best, pieces, least = None, 0, float("inf")
            for link, has in able:
                count = len(link.open)
                expected = (count + 1) * (link.pace.mean or 1e-3)
                if expected < least and has & once and count < link.pace.window(self._size):
                    best, pieces, least = link, has & once, expected
            if best is None:
                break
            piece = self._pick(pieces & rare or pieces)
            once &= ~(1 << piece)
            self._ask(best, piece, BULK, now)
            room -= 1
        return room

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

    def _prepare(self, room: int, now: float) -> int:
        """Ask for pieces ahead of readers, in order; return how much room is left."""
        wanted = 0
        looked = 0
        for piece in self._ahead:
            if room <= 0 or looked >= self.patience.looked_at:
                break
            if (self._book.asked | self._granted) >> piece & 1:
                continue
            looked += 1
            link = self._best(piece, now) if self.known >> piece & 1 else None
            if link is None:
                wanted |= self._missed(piece, self._demands[piece], now) << piece
            elif len(link.open) < link.pace.window(self._size):
                self._ask(link, piece, AHEAD, now)
                room -= 1
        self._say_want(wanted, False)
        return room

    # What does not come

    def _starve(self, now: float) -> None:
        """Note that there is room and nothing to ask for."""
        missing = self.full & ~self.held
        if not missing:
            return
        if missing & ~self._book.asked:
            self._hunger.starve(now)
            if not self._scheduled and now - self._hunger.since >= self.patience.others:
                self._help_itself(missing & ~self._book.asked)
            return
        for request in list(self._book.open.values()):
            if not request.doubled and now >= request.late:
                self._second(request, now)
        self._book.hurry(now)

    def _help_itself(self, missing: int) -> None:
        """Read the origin, because no scheduler says who is to: here and there, as others do."""
        while missing and len(self._book.reading) < READS_UNASKED:
            piece = self._pick(missing)
            missing &= ~(1 << piece)
            self._read(piece)

    def _second(self, request: Request, now: float) -> None:
        """Ask a second host for what is late."""
        others = [each.link for each in self._book.of(request.piece)]
        link = self._best(request.piece, now, others)
        if link is not None:
            request.doubled = True
            self._ask(link, request.piece, request.priority, now, doubled=True)

    def _late(self, now: float) -> None:
        """Ask elsewhere for readers' pieces that are late; give up what stalled."""
        for request in self._book.due(now):
            if now >= request.stalled:
                self._stalled(request, now)
            elif request.priority == READER and not request.doubled and now >= request.late:
                self._second(request, now)

    def _expire(self, now: float) -> None:
        """Forget grants that came to nothing; the scheduler has given them to somebody else."""
        for piece, until in list(self._grants.items()):
            if now >= until and not self._book.asked >> piece & 1:
                self._granted &= ~(1 << piece)
                del self._grants[piece]
                self._recheck(piece, now, 0.0)

    def _stalled(self, request: Request, now: float) -> None:
        link = request.link
        if self._book.close(request.number) is None:
            return
        self._choice.cancels.append(_ask(request))
        # who never answered has no quick answers to his credit
        link.timeouts += 1 if link.pace.mean else self.patience.strikes
        link.strikes += 1
        link.have &= ~(1 << request.piece)
        self._recheck(request.piece, now, 0.0)
        if link.strikes >= self.patience.strikes or not link.pace.mean:
            self._rest(link, now, self.patience.rest)
            self._failed[link.parent.host] = None
            self._hunger.hurry(now)
            self._give_up(link, now)
        self._report(link, now)

    # Telling the scheduler

    def _say_held(self) -> None:
        self._flush = float("inf")
        if not (self._fresh or self._dropped):
            return
        drops = list(runs.parts(self._dropped))
        for index, part in enumerate(runs.parts(self._fresh)):
            both = index == 0 and len(part) + len(drops[0]) <= runs.MOST_PER_MESSAGE
            drop = drops.pop(0) if both else []
            self._choice.control.append(messages.Held(self.handle, part, drop))
        for drop in drops:
            self._choice.control.append(messages.Held(self.handle, [], drop))
        self._fresh = self._dropped = 0

    def _say_need(self, now: float) -> None:
        """Tell of hosts that failed, and give up a parent where there was too little to ask for."""
        wait = self._hunger.wait
        starving = self._hunger.judge(now)
        missing = self.full & ~self.held
        failed = list(self._failed)[:64]
        self._failed.clear()
        self._expire(now)
        useless = self._least(missing, now, wait) if starving and missing else []
        if useless or failed or (starving and missing):
            for host in useless + failed:
                if host in self.links:
                    self.links[host].regular = False
            self._look = now
            self._choice.control.append(messages.Need(self.handle, useless, failed))
        if starving and now - self._hunger.since >= self.patience.quiet and not self._book.open:
            self._say_want(runs.lowest(missing & ~self._granted, 64), False)
        for link in self.links.values():
            link.gave = 0

    def _least(self, missing: int, now: float, wait: float) -> list[bytes]:
        """Return the parent that gave least, of those with nothing to give now."""
        old = [
            link
            for link in self.links.values()
            if link.regular and not link.can & missing and 0 <= link.dialled < now - wait
        ]
        return [min(old, key=lambda link: link.gave).parent.host] if old else []

    def _report(self, link: Link, now: float) -> None:
        report = link.report(self.handle, now)
        if report is not None and self._scheduled:
            self._choice.control.append(report)

    def _wake(self, now: float) -> float:
        """Return when to look again if nothing is told before."""
        wake = min(self._book.alarm, self._look)
        if self._scheduled:
            wake = min(wake, self._flush, self._hunger.due)
        elif self.bulk and len(self._book.reading) < READS_UNASKED:
            helps = self._hunger.since + self.patience.others
            wake = helps if now < helps < wake else wake
        if self._demands:
            for demand in self._demands.values():
                if now < demand.check < wake:
                    wake = demand.check
        return wake


def _ask(request: Request) -> Ask:
    return Ask(request.number, request.link.parent.host, request.piece, request.priority)
