"""Tidings: what a child is told of one task, by readers, its cache, the scheduler and parents.

It only goes into the books here; what follows from it is asked of `choosing.Chooser`.
"""

from __future__ import annotations

from collections.abc import Iterable

from p2p import messages, runs
from p2p.messages import Body, Parent

from .choice import READER
from .hunger import Hunger
from .link import Link
from .part import Demand, Part


class Tidings(Part):
    """The part, as it is told things; each with `now`."""

    # What the reader, the cache and the origin tell

    def want(self, piece: int, priority: int, now: float) -> None:
        """Get a piece for a reader, or ahead of one; `priority` READER or AHEAD."""
        if self.held >> piece & 1:
            return
        demand = self._demands.get(piece)
        if demand is None:
            demand = self._demands[piece] = Demand(priority, now)
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
        if self._untold.fresh:
            self._untold.hurry(now)

    def dropped(self, bits: int, now: float) -> None:
        """Note pieces that are not held any more."""
        bits &= self.held
        self.held &= ~bits
        self._untold.lose(bits)
        self._untold.hurry(now)

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
        self._absence.pause(now)
        self._return(piece, reason)
        self._recheck(piece, now, self.patience.reader)

    # What the scheduler tells

    def join(self, now: float) -> list[Body]:
        """Return all that a scheduler has to be told when there is a session with it."""
        self._scheduled = True
        parts = runs.parts(self.held)
        known = [host for host, link in self.links.items() if link.serves][:64]
        have = next(parts)
        said: list[Body] = [
            messages.Join(self.handle, self.task, self.description, have, self.bulk, known)
        ]
        said += [messages.Held(self.handle, part) for part in parts]
        self._untold.clear()
        self._grants.clear()
        self._granted = 0
        self._absence.helping = False
        self._hunger = Hunger(self.patience)  # that nobody had anything was not the parents' fault
        if self._failed:
            self._hunger.hurry(now)
        for demand in self._demands.values():
            demand.told = demand.answered = False
            demand.check = float("inf")
        return said

    def unscheduled(self, now: float) -> None:
        """Note that the session with the scheduler is gone."""
        self._scheduled = False
        self._deputy.stands = min(self._deputy.stands, now + self.patience.stands)
        self._look = now
        self._absence.begin(now)
        for parent in self._absence.spare:
            self._link(parent, now).regular = True
        if any(link.regular for link in self.links.values()):
            self._absence.patient += self._random.random()
        for demand in self._demands.values():
            demand.told = False

    def take(self, body: Body, now: float) -> None:
        """Take what the scheduler said about this task, or that it set a host aside."""
        if isinstance(body, messages.Parents):
            self._parents(body.parents, now)
            self._absence.spare = body.spare
            self._deputise(body)
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

    def _parents(self, parents: Iterable[Parent], now: float) -> None:
        given = {parent.host: parent for parent in parents}
        for host, link in self.links.items():
            link.regular = host in given
        for parent in given.values():
            self._link(parent, now).regular = True
        self._look = now

    def _deputise(self, body: messages.Parents) -> None:
        """Note what to take from where when there is no scheduler; there is one now."""
        given_up = self._deputy.appoint(body, self.description.pieces, self._book.asked)
        for piece in runs.numbers(given_up & self._granted):
            self._granted &= ~(1 << piece)
            del self._grants[piece]

    def _link(self, parent: Parent, now: float) -> Link:
        link = self.links.get(parent.host)
        if link is None:
            link = self.links[parent.host] = Link(parent, used=now, reported=now)
        elif link.parent.address != parent.address:
            link.parent = parent
        return link

    def _grant(self, body: messages.Grant, now: float) -> None:
        bits = self._decoded(body.pieces)
        if bits & self.held:
            # Returned, it would be granted here again: the scheduler has not heard of it yet.
            self._untold.fresh |= bits & self.held
            self._untold.hurry(now)
        bits &= ~self.held
        self._deputy.taken &= ~bits
        self._granted |= bits
        for piece in runs.numbers(bits):
            self._grants[piece] = now + body.lasts
            self._answered(piece, now + body.lasts)
        if body.source is None:
            for piece in runs.numbers(bits & ~self._book.asked):
                self._read(piece)
        elif bits:
            link = self._link(body.source, now)
            if link.rests >= now + body.lasts:  # it would not be asked in time: let others have it
                for piece in runs.numbers(bits):
                    self._return(piece, "the source failed here a moment ago")
                    self._recheck(piece, now, 0.0)
                return
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

    # What parents tell

    def linked(self, host: bytes, now: float) -> None:
        """Note that there is a session with a host, and that it was told FOLLOW."""
        link = self.links.get(host)
        if link is not None:
            link.ready, link.have, link.used = True, link.extra, now
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
        self._deputy.taken &= ~link.granted
        link.extra = link.granted = 0
        self._failed[host] = None
        self._hunger.hurry(now)

    def have(self, host: bytes, body: messages.Have, now: float) -> bool:
        """Take what a host has, or what changed of it; as `offered`."""
        add, drop = self._decoded(body.add), self._decoded(body.drop)
        return self.offered(host, add, drop, body.whole, now)

    def offered(self, host: bytes, add: int, drop: int, whole: bool, now: float) -> bool:
        """Take the same as bitmaps; return whether it may change what is asked for."""
        link = self.links.get(host)
        if link is None:
            return False
        if link.denied:
            link.denied &= add if whole else ~drop
        link.have = add if whole else link.have | add
        if drop and not whole:
            link.have &= ~drop
        if not add:
            return False
        fresh = add & ~self._seen
        if fresh:
            self._seen |= fresh
            if not whole:
                self._newest |= fresh
        if not add & ~(self.held | self._book.asked) or not (link.regular or link.extra & add):
            return False
        return len(self._book.open) < self.patience.opens(self._latency) or bool(self._demands)

    def began(self, number: int, size: int, now: float) -> None:
        """Note that *size* bytes of a piece begin to come: they get the time that they need."""
        request = self._book.open.get(number)
        if request is not None:
            most = max(self._stall(request.link), size / self.patience.slowest)
            request.stalled = max(request.stalled, now + most)

    def arrived(self, number: int, size: int, now: float) -> None:
        """Note that a piece came, was verified, and is held."""
        request = self._book.close(number)
        if request is None:
            return
        link = request.link
        pace = link.pace
        self._under_way -= pace.under_way
        pace.learn(request.sent, size, now)
        latency = now - request.sent
        self._latency += (latency - self._latency) / (8 if self._latency else 1)
        self._under_way += pace.under_way
        link.strikes, link.used = 0, now
        if not self._deputy.taken >> request.piece & 1:
            self._absence.came = now
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
