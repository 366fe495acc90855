"""Which piece from whom next: what a child of one task decides, pure.

Whoever drives a `Chooser` tells it what happened, each time with `now`, then calls `choose` and
does what the `Choice` says; it calls again after whatever it tells, and at `wake`. The client does
so with sockets, the simulator without: there is one policy.

The order of things: pieces that readers wait for, in the order of asking, at once and beyond every
window; then those asked for ahead, in order; then, in bulk mode, the rest, rarest first among the
parents' pieces and at random among the equally rare. A parent has two requests open and all of them
five, more where rate times latency says that more are under way (`pace`). What nobody known has is
a WANT to the scheduler, which answers with a hint, a grant, or that somebody is getting it.

An answer that is later than 95 of 100 of its parent are gets a second request elsewhere, for
readers always and for others at the end, when nothing else is left to ask for. A request without an
answer for much longer is given up, and a parent with three of those is no use. Where the scheduler
does not answer, the origin is asked after half a second for a reader, five otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from . import messages, runs
from .link import Link, Request
from .messages import Body, Description, Parent

READER, AHEAD, BULK = 0, 1, 2
"""Priorities, as on the wire."""


@dataclass(frozen=True, slots=True)
class Patience:
    """The child's settings: how many and how long."""

    total: int = 5
    """Requests open at once, at first and at least."""
    total_most: int = 64
    reader: float = 0.5
    """Seconds without a word of the scheduler before a reader's piece comes from the origin."""
    others: float = 5.0
    gather: float = 2.0
    """Seconds for which HELD is gathered."""
    stall_first: float = 5.0
    """Seconds without an answer that are too many where nothing is known of anybody."""
    stall_least: float = 1.0
    strikes: int = 3
    rest: float = 10.0
    """Seconds for which a host that failed is not asked."""
    report: float = 10.0
    need_first: float = 0.25
    need_most: float = 8.0
    quiet: float = 1.0
    """Seconds without news after which a parent that has nothing is useless."""
    looked_at: int = 128
    """Pieces asked for ahead that are looked at each time."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to send."""

    number: int
    host: bytes
    piece: int
    priority: int


@dataclass(slots=True)
class Choice:
    """What to do now."""

    asks: list[Ask] = field(default_factory=list)
    cancels: list[Ask] = field(default_factory=list)
    """There may be an answer all the same; it is to be told like any other."""
    origin: list[int] = field(default_factory=list)
    """Pieces to read from the origin; told back by `fetched` or `unfetched`."""
    complaints: list[tuple[bytes, int]] = field(default_factory=list)
    connect: list[Parent] = field(default_factory=list)
    """Hosts to have a session with and to FOLLOW; told back by `linked` or `unlinked`."""
    leave: list[bytes] = field(default_factory=list)
    """Hosts to UNFOLLOW: nothing is open there."""
    control: list[Body] = field(default_factory=list)
    """Messages to the scheduler."""
    wake: float = float("inf")


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
        self.known = self.full if description.kind == "blob" else 0
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
        self._open: dict[int, Request] = {}
        self._by_piece: dict[int, list[Request]] = {}
        self._asked = 0
        """Pieces with an open request that has not stalled, or being read from the origin."""
        self._reading: dict[int, None] = {}
        self._grants: dict[int, float] = {}
        """Open ones and their ends."""
        self._granted = 0
        self._fresh = 0
        """Held, and the scheduler not told."""
        self._dropped = 0
        self._flush = float("inf")
        self._number = 0
        self._need = float("inf")
        """When the scheduler may be told of useless parents again."""
        self._back_off = self.patience.need_first
        self._useless: dict[bytes, None] = {}
        self._idle = float("inf")
        """Since when there has been nothing to ask for while something is missing."""
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
        for piece in runs.numbers(bits & ~self.held & self._asked):
            self._cancel(piece)
        for piece in runs.numbers(bits & (self._granted | runs.of(self._demands))):
            self._got(piece, now)
        self._gain(bits & ~self.held, now)

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
        self._reading.pop(piece, None)
        self._arrive(piece, now)

    def unfetched(self, piece: int, reason: str, now: float) -> None:
        """Note that a piece could not be had from the origin."""
        self._reading.pop(piece, None)
        self._release(piece)
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
                link.rests = max(link.rests, now + body.seconds)
                self._give_up(link, now)

    # What parents tell

    def linked(self, host: bytes, now: float) -> None:
        """Note that there is a session with a host, and that it was told FOLLOW."""
        link = self.links.get(host)
        if link is not None:
            link.ready, link.have, link.news = True, link.extra, now

    def unlinked(self, host: bytes, now: float) -> None:
        """Note that the session with a host is gone, or could not be had."""
        link = self.links.get(host)
        if link is None:
            return
        link.ready, link.have, link.dialled = False, 0, -1.0
        link.rests = now + self.patience.rest
        self._give_up(link, now)
        for piece in runs.numbers(link.granted & self._granted):
            self._return(piece, "no session with the source")
            self._recheck(piece, now, 0.0)
        for piece in runs.numbers(link.extra & ~link.granted):
            self._recheck(piece, now, 0.0)
        link.extra = link.granted = 0
        self._useless[host] = None
        self._need = min(self._need, now)

    def have(self, host: bytes, body: messages.Have, now: float) -> None:
        """Take what a host has, or what changed of it."""
        link = self.links.get(host)
        if link is None:
            return
        add = self._decoded(body.add)
        if body.whole:
            link.have = add
        else:
            link.have = (link.have | add) & ~self._decoded(body.drop)
        if add:
            link.news = now

    def arrived(self, number: int, size: int, now: float) -> None:
        """Note that a piece came, was verified, and is held."""
        request = self._close(number)
        if request is None:
            return
        link = request.link
        link.pace.learn(request.sent, size, now)
        link.strikes = 0
        link.served += 1
        link.size += size
        link.seconds += now - request.sent
        self._arrive(request.piece, now)

    def absent(self, number: int, now: float) -> None:
        """Note that a host does not have what it was asked for."""
        request = self._fail(number, now)
        if request is not None:
            request.link.have &= ~(1 << request.piece)
            request.link.absent += 1

    def busy(self, number: int, retry_after: float, now: float) -> None:
        """Note that a host has no slot."""
        request = self._fail(number, now, keep=True)
        if request is not None:
            request.link.rests = now + max(0.01, retry_after)

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
        link.rests = now + self.patience.rest
        self._choice.complaints.append((link.parent.host, request.piece))
        self._useless[link.parent.host] = None
        self._need = min(self._need, now)
        self._report(link, now)

    # What to do

    def choose(self, now: float) -> Choice:
        """Return what is to be done; what is decided here counts as done."""
        self._late(now)
        for link in self.links.values():
            self._dial(link, now)
            if link.granted and link.ready:
                self._collect(link, now)
        if self._demands:
            self._serve(now)
        if self.bulk or self._ahead:
            self._fill(now)
        self._tell(now)
        choice, self._choice = self._choice, Choice()
        choice.wake = self._wake(now)
        return choice

    @property
    def complete(self) -> bool:
        """Whether every piece is held."""
        return self.held == self.full

    # Answers

    def _arrive(self, piece: int, now: float) -> None:
        self._cancel(piece)
        soon = bool((self._granted | self._hinted()) >> piece & 1)
        self._got(piece, now)
        self._gain(1 << piece, now)
        if soon:
            self._flush = now

    def _got(self, piece: int, now: float) -> None:
        """Forget what was in train for a piece."""
        self._forget(piece)
        if self._granted >> piece & 1:
            self._granted &= ~(1 << piece)
            self._grants.pop(piece, None)
            self._flush = now

    def _gain(self, bits: int, now: float) -> None:
        if bits:
            self.held |= bits
            self._asked &= ~bits
            self._fresh |= bits
            self._dropped &= ~bits
            self._flush = min(self._flush, now + self.patience.gather)
            if self.held == self.full:
                self._flush = now

    def _forget(self, piece: int) -> _Demand | None:
        self._readers &= ~(1 << piece)
        self._ahead.pop(piece, None)
        return self._demands.pop(piece, None)

    def _close(self, number: int) -> Request | None:
        """Take an open request out of the books."""
        request = self._open.pop(number, None)
        if request is None:
            return None
        del request.link.open[number]
        others = self._by_piece[request.piece]
        others.remove(request)
        if not others:
            del self._by_piece[request.piece]
            self._release(request.piece)
        return request

    def _release(self, piece: int) -> None:
        """Let a piece be asked for again, unless it is being got."""
        if piece not in self._by_piece and piece not in self._reading:
            self._asked &= ~(1 << piece)

    def _fail(self, number: int, now: float, keep: bool = False) -> Request | None:
        """Close a request that came to nothing; a grant is returned unless it is to be kept."""
        request = self._close(number)
        if request is None:
            return None
        link, bit = request.link, 1 << request.piece
        if link.granted & bit and not keep:
            link.granted &= ~bit
            link.extra &= ~bit
            self._return(request.piece, "failed")
        if not keep:
            self._recheck(request.piece, now, 0.0)
        return request

    def _return(self, piece: int, reason: str) -> None:
        if self._granted >> piece & 1:
            self._granted &= ~(1 << piece)
            self._grants.pop(piece, None)
            self._choice.control.append(messages.Return(self.handle, [piece, piece + 1], reason))

    def _cancel(self, piece: int) -> None:
        """Take back every open request of a piece."""
        for request in list(self._by_piece.get(piece, ())):
            self._close(request.number)
            self._choice.cancels.append(_ask(request))

    def _give_up(self, link: Link, now: float) -> None:
        """Take back whatever is open at a host."""
        for request in list(link.open.values()):
            self._fail(request.number, now)
            self._choice.cancels.append(_ask(request))

    # The scheduler's words

    def _parents(self, parents: Iterable[Parent], now: float) -> None:
        given = {parent.host: parent for parent in parents}
        for host, link in list(self.links.items()):
            link.regular = host in given
            if link.regular:
                link.parent = given[host]
        for parent in given.values():
            self._link(parent, now).regular = True
        if len(given) < len([link for link in self.links.values() if link.regular]):
            self._need = min(self._need, now + self._back_off)

    def _link(self, parent: Parent, now: float) -> Link:
        link = self.links.get(parent.host)
        if link is None:
            link = self.links[parent.host] = Link(parent, news=now, reported=now)
        elif link.parent.address != parent.address:
            link.parent = parent
        return link

    def _grant(self, body: messages.Grant, now: float) -> None:
        bits = self._decoded(body.pieces)
        for piece in runs.numbers(bits & self.held):
            self._choice.control.append(messages.Return(self.handle, [piece, piece + 1], "held"))
        bits &= ~self.held
        self._granted |= bits
        for piece in runs.numbers(bits):
            self._grants[piece] = now + body.lasts
            self._answered(piece, now + body.lasts)
        if body.source is None:
            for piece in runs.numbers(bits & ~self._asked):
                self._read(piece)
        else:
            link = self._link(body.source, now)
            link.granted |= bits
            link.extra |= bits
            link.rests = min(link.rests, now)
            link.have |= bits

    def _hint(self, body: messages.Hint, now: float) -> None:
        bits = self._decoded(body.pieces) & ~self.held
        link = self._link(body.parent, now)
        link.extra |= bits
        link.have |= bits
        for piece in runs.numbers(bits):
            self._answered(piece, now + self._stall(link))

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

    def _hinted(self) -> int:
        bits = 0
        for link in self.links.values():
            bits |= link.extra
        return bits

    # Asking

    def _dial(self, link: Link, now: float) -> None:
        """Have a session with a host that is of use, and none with one that is not."""
        wanted = link.regular or link.extra & ~self.held
        if wanted and link.dialled < 0 and link.rests <= now:
            link.dialled = now
            self._choice.connect.append(link.parent)
        elif not wanted and not link.open and link.dialled >= 0 and now - link.news > 5.0:
            self._report(link, now)
            self._choice.leave.append(link.parent.host)
            link.ready, link.dialled, link.have = False, -1.0, 0

    def _collect(self, link: Link, now: float) -> None:
        """Ask a source for what was granted from it."""
        if link.rests > now:
            return
        for piece in runs.numbers(link.granted & self._granted & ~self._asked):
            demand = self._demands.get(piece)
            self._ask(link, piece, demand.priority if demand else BULK, now)

    def _ask(
        self, link: Link, piece: int, priority: int, now: float, doubled: bool = False
    ) -> None:
        self._number += 1
        late = link.pace.late or self._usual() * 2
        request = Request(
            self._number, link, piece, priority, now, now + late, now + self._stall(link), doubled
        )
        self._open[request.number] = link.open[request.number] = request
        self._by_piece.setdefault(piece, []).append(request)
        self._asked |= 1 << piece
        self._choice.asks.append(_ask(request))

    def _read(self, piece: int) -> None:
        """Take a piece from the origin."""
        self._reading[piece] = None
        self._asked |= 1 << piece
        self._choice.origin.append(piece)

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

    def _room(self, link: Link, now: float) -> bool:
        return link.ready and link.rests <= now and len(link.open) < link.pace.open(self._size)

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

    def _serve(self, now: float) -> None:
        """See to what readers wait for."""
        bits = self._readers & ~self._asked
        if not bits:
            return
        wanted = 0
        for piece, demand in self._demands.items():
            if not bits >> piece & 1:
                continue
            link = self._best(piece, now) if self.known >> piece & 1 else None
            if link is not None:
                self._ask(link, piece, READER, now)
            elif self._missed(piece, demand, now):
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
            self._useless.update(dict.fromkeys(self._failing(piece)))
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
        room = self._total() - len(self._open)
        if room <= 0:
            return
        if self._ahead:
            room = self._prepare(room, now)
        if not self.bulk or room <= 0:
            return
        missing = self.full & ~(self.held | self._asked | self._granted) & self.known
        able = []
        once = twice = 0
        for link in self.links.values():
            if not link.ready or link.rests > now:
                continue
            has = missing & link.can
            if has:
                able.append(link)
                twice |= once & has
                once |= has
        rare = once & ~twice
        while room > 0 and once:
            chosen = self._roomiest(able, once, now)
            if chosen is None:
                return
            has = once & chosen.can
            piece = self._pick(has & rare or has)
            once &= ~(1 << piece)
            self._ask(chosen, piece, BULK, now)
            room -= 1
        if room > 0:
            self._starve(now)
        else:
            self._idle = float("inf")

    def _roomiest(self, able: list[Link], bits: int, now: float) -> Link | None:
        best, least = None, float("inf")
        for link in able:
            if bits & link.can and self._room(link, now):
                expected = (len(link.open) + 1) * (link.pace.mean or 1e-3)
                if expected < least:
                    best, least = link, expected
        return best

    def _pick(self, bits: int) -> int:
        """Return one of the numbers of a bitmap at random; those after gaps are likelier."""
        size = bits.bit_length()
        start = int(self._random.random() * size)
        later = bits >> start
        return start + runs.first(later) if later else runs.first(bits)

    def _total(self) -> int:
        """Return how many requests may be open at once."""
        under_way = 0.0
        for link in self.links.values():
            under_way += link.pace.rate * link.pace.quickest
        wanted = int(under_way / self._size + 2.5)
        return max(self.patience.total, min(self.patience.total_most, wanted))

    def _prepare(self, room: int, now: float) -> int:
        """Ask for pieces ahead of readers, in order; return how much room is left."""
        wanted = 0
        looked = 0
        for piece in self._ahead:
            if room <= 0 or looked >= self.patience.looked_at:
                break
            if self._asked >> piece & 1 or self._granted >> piece & 1:
                continue
            looked += 1
            link = self._best(piece, now) if self.known >> piece & 1 else None
            if link is not None:
                if self._room(link, now):
                    self._ask(link, piece, AHEAD, now)
                    room -= 1
            elif self._missed(piece, self._demands[piece], now):
                wanted |= 1 << piece
        self._say_want(wanted, False)
        return room

    # What does not come

    def _starve(self, now: float) -> None:
        """There is room and nothing to ask for."""
        missing = self.full & ~self.held
        if not missing:
            return
        if self._idle > now:
            self._idle = now
            self._need = min(self._need, now + self._back_off)
        if missing & ~self._asked == 0:
            self._double(now)

    def _double(self, now: float) -> None:
        """Ask a second host for what is late."""
        for request in list(self._open.values()):
            if not request.doubled and now >= request.late:
                self._second(request, now)

    def _second(self, request: Request, now: float) -> bool:
        others = [each.link for each in self._by_piece[request.piece]]
        link = self._best(request.piece, now, others)
        if link is None:
            return False
        request.doubled = True
        self._ask(link, request.piece, request.priority, now, doubled=True)
        return True

    def _late(self, now: float) -> None:
        """Ask elsewhere for readers' pieces that are late; give up what stalled."""
        for request in list(self._open.values()):
            if now >= request.stalled:
                self._stalled(request, now)
            elif request.priority == READER and not request.doubled and now >= request.late:
                self._second(request, now)
        for piece, until in list(self._grants.items()):
            if now >= until and piece not in self._reading:
                self._granted &= ~(1 << piece)
                del self._grants[piece]
                self._recheck(piece, now, 0.0)

    def _stalled(self, request: Request, now: float) -> None:
        link = request.link
        self._close(request.number)
        self._choice.cancels.append(_ask(request))
        link.timeouts += 1
        link.strikes += 1
        link.have &= ~(1 << request.piece)
        self._recheck(request.piece, now, 0.0)
        if link.strikes >= self.patience.strikes or not link.pace.mean:
            link.rests = now + self.patience.rest
            self._useless[link.parent.host] = None
            self._need = min(self._need, now)
            self._give_up(link, now)
        self._report(link, now)

    # Telling the scheduler

    def _tell(self, now: float) -> None:
        if not self._scheduled:
            return
        if self._flush <= now:
            self._say_held()
        if self._need <= now:
            self._say_need(now)
        for link in self.links.values():
            if link.served and now - link.reported >= self.patience.report:
                self._report(link, now)

    def _say_held(self) -> None:
        self._flush = float("inf")
        if not (self._fresh or self._dropped):
            return
        drops = list(runs.parts(self._dropped))
        for index, part in enumerate(runs.parts(self._fresh)):
            drop = drops.pop(0) if index == 0 and len(part) + len(drops[0]) <= 8192 else []
            self._choice.control.append(messages.Held(self.handle, part, drop))
        for drop in drops:
            self._choice.control.append(messages.Held(self.handle, [], drop))
        self._fresh = self._dropped = 0

    def _say_need(self, now: float) -> None:
        """Tell of places that are empty and of parents that are no use, with back-off."""
        self._need = float("inf")
        missing = self.full & ~self.held
        if not missing:
            return
        useless = dict.fromkeys(self._useless)
        self._useless.clear()
        starving = self._idle <= now
        if starving:
            for host, link in self.links.items():
                quiet = now - max(link.news, link.dialled) > self.patience.quiet
                if link.regular and quiet and not link.can & missing:
                    useless[host] = None
        if useless:
            for host in useless:
                if host in self.links:
                    self.links[host].regular = False
            self._choice.control.append(messages.Need(self.handle, list(useless)[:64]))
        if starving:
            if now - self._idle >= self.patience.quiet and not self._open:
                self._say_want(runs.lowest(missing & ~self._granted, 64), False)
            self._back_off = min(self.patience.need_most, 2 * self._back_off)
            self._need = now + self._back_off
        else:
            self._back_off = self.patience.need_first

    def _report(self, link: Link, now: float) -> None:
        report = link.report(self.handle, now)
        if report is not None and self._scheduled:
            self._choice.control.append(report)

    def _wake(self, now: float) -> float:
        """Return when to look again if nothing is told before."""
        wake = min(self._flush, self._need) if self._scheduled else float("inf")
        for request in self._open.values():
            wake = min(wake, request.stalled)
            if not request.doubled and now < request.late < wake:
                wake = request.late
        for demand in self._demands.values():
            if now < demand.check < wake:
                wake = demand.check
        for until in self._grants.values():
            if now < until < wake:
                wake = until
        for link in self.links.values():
            if now < link.rests < wake:
                wake = link.rests
        return wake


def _ask(request: Request) -> Ask:
    return Ask(request.number, request.link.parent.host, request.piece, request.priority)
