"""Which piece from whom next: what a child of one task decides, pure.

Whoever drives a `Chooser` tells it what happened, each time with `now`, then calls `choose` and
does what the `Choice` says; it calls again after whatever it tells, and at `wake`. The client does
so with sockets, the simulator without: there is one policy.

The order of things: pieces that readers wait for, in the order of asking, at once and beyond every
window; then those asked for ahead, in order; then, in bulk mode, the rest: rarest first among the
parents' pieces, of those the newest to appear, else one at random. A parent has two requests open
and all of them five, or four where answers take long; more where rate times latency says that more
are under way (`pace`). What nobody known has is a WANT to the scheduler, which answers with a hint,
a grant, or that somebody is getting it.

An answer that is later than 95 of 100 of its parent are gets a second request elsewhere, for
readers always and for others at the end, when nothing else is left to ask for. A request without an
answer for much longer is given up, and a parent with three of those is no use; a source has as long
as its grant, and a piece that begins to come as long as it needs. Where the scheduler does not
answer, the origin is asked after half a second for a reader, five otherwise; where there is none,
all of a task is read after two.
"""

from __future__ import annotations

from collections.abc import Iterable

from p2p import messages, runs

from .alone import Alone
from .choice import AHEAD, BULK, READER, Ask, Choice, Patience
from .link import Link, Request
from .part import Demand, ask_of

__all__ = ["AHEAD", "BULK", "READER", "Ask", "Choice", "Chooser", "Patience"]


COMMON = 3
"""Parents with a reader's piece from which on it is asked for without a word to the scheduler."""


class Chooser(Alone):
    """Decides what a child does next."""

    # What to do

    def choose(self, now: float) -> Choice:
        """Return what is to be done; what is decided here counts as done."""
        if self._book.alarm <= now:
            self._late(now)
        if self._deputy.stands <= now:
            self._stand_in(now)
        if self._look <= now:
            self._tend(now)
        if self._demands:
            self._serve(now)
        if self.bulk or self._ahead:
            self._fill(now)
        if self._scheduled:
            if self._untold.due <= now:
                self._say_held()
            if self._hunger.due <= now:
                self._say_need(now)
        choice, self._choice = self._choice, Choice()
        choice.wake = self._wake(now)
        return choice

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
            stands_for = self._stands_for(link)
            if link.regular or link.extra & ~self.held or stands_for:
                self._approach(link, link.regular or stands_for, now)
                if link.granted and link.ready and link.rests <= now:
                    self._collect(link, now)
                if link.served and now - link.reported >= self.patience.report:
                    self._report(link, now)
            elif not link.open and not link.denied:  # else it may take back yet what it claims
                self._part(host, link, now)

    def _approach(self, link: Link, loud: bool, now: float) -> None:
        """See that there is a session; a *loud* host is to tell what it has."""
        if link.dialled < 0 and link.rests <= now:
            link.dialled, link.quiet = now, not loud
            (self._choice.connect if loud else self._choice.approach).append(link.parent)
        elif link.quiet and loud and link.dialled >= 0:
            link.quiet = False
            self._choice.connect.append(link.parent)

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
        """Leave a host that is of no use: at once where it talks, else after a while; forget it."""
        if link.dialled >= 0:
            if not link.quiet or now - max(link.used, link.dialled) >= self.patience.linger:
                self._report(link, now)
                self._choice.leave.append(host)
                link.ready, link.dialled, link.have = False, -1.0, 0
        elif link.rests <= now:
            del self.links[host]

    def _collect(self, link: Link, now: float) -> None:
        """Ask a source for what was granted from it."""
        for piece in runs.numbers(link.granted & self._granted & ~self._book.asked):
            demand = self._demands.get(piece)
            self._ask(link, piece, demand.priority if demand else AHEAD, now)

    # Asking

    def _ask(
        self, link: Link, piece: int, priority: int, now: float, doubled: bool = False
    ) -> None:
        request = self._book.add(link, piece, priority, now)
        request.doubled = doubled
        late = now + (link.pace.late or 2 * self._usual())
        stalled = now + self._stall(link)
        if link.granted >> piece & 1:  # it may have to get it first: the scheduler knows how long
            stalled = max(stalled, self._grants.get(piece, 0.0))
        self._book.watch(request, late, stalled)
        self._choice.asks.append(Ask(request.number, link.parent.host, piece, priority))

    def _serve(self, now: float) -> None:
        """See to what readers wait for."""
        bits = self._readers & ~self._book.asked
        wanted = 0
        for piece in runs.numbers(bits):
            link = self._found(piece, now)
            if link is not None:
                self._ask(link, piece, READER, now)
            elif self._missed(piece, self._demands[piece], now):
                wanted |= 1 << piece
        self._say_want(wanted, True)

    def _found(self, piece: int, now: float, but: Iterable[Link] = ()) -> Link | None:
        """Return whom to ask for a piece that a reader waits for.

        What few parents have, others lack as well, and only the scheduler knows who is free to
        send it: readers that keep step would all ask the same host.
        """
        if not self.known >> piece & 1:
            return None
        parents = [link for link in self.links.values() if link.regular and link.ready]
        able = [link for link in parents if link.have >> piece & 1]
        if self.bulk or not self._scheduled or len(parents) < COMMON or len(able) >= COMMON:
            return self._best(piece, now, but)
        unasked = [link for link in able if not link.extra >> piece & 1]
        return self._best(piece, now, [*but, *unasked])

    def _missed(self, piece: int, demand: Demand, now: float) -> bool:
        """Return whether to tell the scheduler of a piece that nobody has; or go to the origin."""
        if not self._scheduled:
            self._get(piece, demand, now)
            return False
        patience = self.patience.reader if demand.priority == READER else self.patience.others
        if not demand.told:
            demand.told, demand.answered, demand.check = True, False, now + patience
            return True
        if now >= demand.check:
            if not demand.answered:
                self._turn_elsewhere(piece, demand, now)
                return False
            demand.answered, demand.check = False, now + patience
            self._failed.update(dict.fromkeys(self._failing(piece)))
            self._hunger.hurry(now)
            return True
        return False

    def _turn_elsewhere(self, piece: int, demand: Demand, now: float) -> None:
        """Take a piece from a parent that has it, else from the origin: no scheduler answers."""
        link = self._best(piece, now) if self.known >> piece & 1 else None
        if link is not None:
            self._ask(link, piece, demand.priority, now)
        else:
            self._read(piece)

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
        room = max(self.patience.opens(self._latency), min(self.patience.total_most, room))
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
        missing = self.full & ~(self.held | self._book.asked) & self.known
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

    def _prepare(self, room: int, now: float) -> int:
        """Ask for pieces ahead of readers, in order; return how much room is left."""
        wanted = 0
        looked = 0
        able = self._able(now)
        for piece in self._ahead:
            if room <= 0 or looked >= self.patience.looked_at:
                break
            if (self._book.asked | self._granted) >> piece & 1:
                continue
            looked += 1
            link = self._best(piece, now) if able >> piece & 1 else None
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
            if not self._scheduled:
                self._help_itself(missing & ~self._book.asked, now)
            return
        for request in list(self._book.open.values()):
            if not request.doubled and now >= request.late:
                self._second(request, now)
        self._book.hurry(now)

    def _second(self, request: Request, now: float) -> None:
        """Ask a second host for what is late."""
        others = [each.link for each in self._book.of(request.piece)]
        link = self._found(request.piece, now, others)
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
        most = self._stall(link)
        if now < link.used + most and now < request.sent + self.patience.queued:
            request.stalled = link.used + most  # it answers, one thing after the other
            return
        if self._book.close(request.number) is None:
            return
        self._choice.cancels.append(ask_of(request))
        # who never answered has no quick answers to his credit
        link.timeouts += 1 if link.pace.mean else self.patience.strikes
        link.strikes += 1
        link.have &= ~(1 << request.piece)
        self._recheck(request.piece, now, 0.0)
        if link.strikes >= self.patience.strikes or not link.pace.mean:
            self._rest(link, now, self.patience.rest)
            self._failed[link.parent.host] = None
            self._hunger.hurry(now)
            self._give_back(link, request.piece)
            self._give_up(link, now)
        self._report(link, now)

    # Telling the scheduler

    def _say_held(self) -> None:
        fresh, dropped = self._untold.fresh, self._untold.dropped
        self._untold.clear()
        if not (fresh or dropped):
            return
        drops = list(runs.parts(dropped))
        for index, part in enumerate(runs.parts(fresh)):
            both = index == 0 and len(part) + len(drops[0]) <= runs.MOST_PER_MESSAGE
            drop = drops.pop(0) if both else []
            self._choice.control.append(messages.Held(self.handle, part, drop))
        for drop in drops:
            self._choice.control.append(messages.Held(self.handle, [], drop))

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
            self._say_want(runs.lowest(missing & ~self._granted, self.patience.total), False)
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

    def _wake(self, now: float) -> float:
        """Return when to look again if nothing is told before."""
        wake = min(self._book.alarm, self._look)
        if now < self._deputy.stands < wake:
            wake = self._deputy.stands
        if self._scheduled:
            wake = min(wake, self._untold.due, self._hunger.due)
        elif now < self._helps < wake:
            wake = self._helps
        if self._demands:
            for demand in self._demands.values():
                if now < demand.check < wake:
                    wake = demand.check
        return wake
