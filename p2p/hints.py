"""Who wants what, and who can be sent to whom for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from random import Random

from . import runs
from .resource import Host, Peer

GUESTS = 2
"""Readers' pieces that one host is to send at a time. Hosts that start one program all miss what
one of them has just got: sent there together, each gets a ninth of its uplink and none gets ahead.
Those who wait are sent on to who has it next, so that all uplinks carry it and the hosts stand one
behind the other."""
LISTED = 8
"""Holders remembered per piece."""
PER_HOLDER = 4
"""Who is sent to a new holder at once; they pass it on, and hold it a moment later."""
LOOKED_AT = 16
"""Of those who wait, among whom readers are looked for."""
IN_STEP = 64
"""Among whom readers are looked for that wait until a holder is free."""
VISITORS = 16
"""Who is sent to one holder in a second, readers apart: twice as many as it serves at once."""
AGAIN = 1.0
"""Seconds after which a host that still waits is sent to another holder."""

Hinted = dict[tuple[Peer, Host], int]


@dataclass(slots=True)
class Hints:
    """Matches wants with holders; one for all tasks of a scheduler."""

    random: Random
    given: Hinted = field(default_factory=dict)
    """Who was sent where for which pieces since it was last looked at."""
    _freed: dict[Peer, None] = field(default_factory=dict)
    """Hosts with a guest less, or with more that others want."""

    def want(self, peer: Peer, bits: int, urgent: bool, now: float) -> None:
        """Note what a peer wants, and send it to holders."""
        task = peer.task
        bits &= ~peer.held
        again = bits & peer.urgent
        for piece in runs.numbers(bits & ~peer.wanted):
            task.wanters.setdefault(piece, {})[peer] = -AGAIN
        task.wanted |= bits
        peer.wanted |= bits
        if urgent:
            peer.urgent |= bits
        peer.orphans &= ~bits
        for piece in runs.numbers(again & runs.of(peer.sent)):
            self._depart(peer, piece)
        self.search(peer, bits, now, again)

    def unwant(self, peer: Peer, bits: int) -> None:
        """Forget what a peer wanted."""
        task = peer.task
        for piece in runs.numbers(bits & peer.wanted):
            self._depart(peer, piece)
            wanters = task.wanters[piece]
            del wanters[peer]
            if not wanters:
                del task.wanters[piece]
                task.wanted &= ~(1 << piece)
        peer.wanted &= ~bits
        peer.urgent &= ~bits
        peer.orphans &= ~bits

    def search(self, peer: Peer, bits: int, now: float, overdue: int = 0) -> None:
        """Send a peer to holders of what it wants; where all of them failed it, it is an orphan.

        What is *overdue* is not to wait for a holder with less to do.
        """
        task = peer.task
        bits &= task.counted()
        if peer.site.closed:
            # what is on its way to the site is shown to those who wait when it has come
            bits &= peer.site.held | peer.urgent & ~peer.site.grants.bits
        for piece in runs.numbers(bits):
            holder = self.holder(peer, piece, now)
            if holder is None:
                peer.orphans |= 1 << piece
            elif self._in_step(peer, piece):
                if holder.guests < GUESTS or overdue >> piece & 1 or not self._coming(peer, piece):
                    self._send(peer, holder, piece, now)
            elif peer.urgent >> piece & 1 or self._welcome(holder, now):
                self._send(peer, holder, piece, now)

    def room(self, now: float) -> None:
        """Send those who wait to hosts that have less to send now."""
        freed, self._freed = self._freed, {}
        for holder in freed:
            task = holder.task
            if task.by_host.get(holder.host.id) is not holder:
                continue
            for piece in islice(runs.numbers(holder.held & task.wanted), LOOKED_AT):
                for peer in list(islice(task.wanters.get(piece, ()), IN_STEP)):
                    if (
                        holder.guests < GUESTS
                        and piece not in peer.sent
                        and self._in_step(peer, piece)
                        and self._usable(holder, peer, now)
                        and self._may_meet(holder, peer, piece)
                    ):
                        self._send(peer, holder, piece, now)

    def orphan(self, peer: Peer, piece: int, now: float) -> bool:
        """Say whether a wanted piece is an orphan still; where it is not, send the peer there."""
        holder = self.holder(peer, piece, now)
        if holder is None:
            return True
        peer.orphans &= ~(1 << piece)
        self._send(peer, holder, piece, now)
        return False

    def held(self, holder: Peer, bits: int, now: float) -> None:
        """List a new holder of pieces, and send some of those to it who wait for them."""
        task = holder.task
        for piece in runs.numbers(bits & ~task.plenty):
            listed = task.holders.setdefault(piece, [])
            listed.append(holder)
            if len(listed) >= LISTED:
                task.plenty |= 1 << piece
        for piece in runs.numbers(bits & task.wanted):
            for peer in self._waiting(holder, piece, now):
                self._send(peer, holder, piece, now)
        if bits & task.wanted:
            self._freed[holder] = None

    def holder(self, peer: Peer, piece: int, now: float) -> Peer | None:
        """Return a holder of a piece that is of use to a peer."""
        task = peer.task
        listed = [each for each in task.holders.get(piece, ()) if self._has(each, piece)]
        usable = [each for each in listed if self._usable(each, peer, now)]
        if task.plenty >> piece & 1 and (not usable or len(listed) < LISTED):
            # not everybody is listed, and those who are went away or are of no use
            holders = [each for each in task.peers if self._has(each, piece)]
            usable = [each for each in holders if self._usable(each, peer, now)]
            listed = holders[:LISTED]
        task.holders[piece] = listed
        if len(listed) < LISTED:
            task.plenty &= ~(1 << piece)
        if peer.site.closed and peer.site.held >> piece & 1:
            usable = self._near(peer, piece, usable, now) or usable
        if usable and self._in_step(peer, piece):
            least = min(each.guests for each in usable)
            usable = [each for each in usable if each.guests == least]
        return self.random.choice(usable) if usable else None

    def _near(self, peer: Peer, piece: int, usable: list[Peer], now: float) -> list[Peer]:
        """Return those of a peer's own site that are of use, be they listed or not."""
        near = [each for each in usable if each.site is peer.site]
        if near:
            return near
        holders = [each for each in peer.site.peers if self._has(each, piece)]
        return [each for each in holders if self._usable(each, peer, now)]

    def taken(self) -> Hinted:
        """Return what was given since the last call."""
        given, self.given = self.given, {}
        return given

    def _send(self, peer: Peer, holder: Peer, piece: int, now: float) -> None:
        wanters = peer.task.wanters[piece]
        del wanters[peer]
        wanters[peer] = now
        if self._in_step(peer, piece):
            self._depart(peer, piece)
            peer.sent[piece] = holder
            holder.guests += 1
        key = peer, holder.host
        self.given[key] = self.given.get(key, 0) | 1 << piece

    def _depart(self, peer: Peer, piece: int) -> None:
        """Note that a reader's piece is no longer to come from where the peer was sent."""
        holder = peer.sent.pop(piece, None)
        if holder is not None:
            holder.guests -= 1
            self._freed[holder] = None

    @staticmethod
    def _in_step(peer: Peer, piece: int) -> bool:
        """Whether a reader waits for a piece whose host takes what is read alone."""
        return bool(peer.urgent >> piece & 1) and not peer.bulk

    @staticmethod
    def _coming(peer: Peer, piece: int) -> bool:
        """Whether somebody else was sent for a piece, and will have it soon."""
        others = islice(peer.task.wanters.get(piece, ()), IN_STEP)
        return any(piece in other.sent for other in others if other is not peer)

    def _waiting(self, holder: Peer, piece: int, now: float) -> list[Peer]:
        """Return the few that a new holder is shown to: of the first who wait, readers first."""
        first: list[Peer] = []
        for peer, last in holder.task.wanters[piece].items():
            if now - last < AGAIN or len(first) >= LOOKED_AT:
                break
            if self._in_step(peer, piece):
                continue
            if self._usable(holder, peer, now) and self._may_meet(holder, peer, piece):
                first.append(peer)
        first.sort(key=lambda peer: not peer.urgent >> piece & 1)
        return first[:PER_HOLDER]

    @staticmethod
    def _may_meet(holder: Peer, peer: Peer, piece: int) -> bool:
        """Whether a piece may come from there: to a closed site only for readers, and but once."""
        site = peer.site
        if not site.closed or holder.site is site:
            return True
        return bool(peer.urgent & ~(site.held | site.grants.bits) & 1 << piece)

    @staticmethod
    def _welcome(holder: Peer, now: float) -> bool:
        """Whether another may be sent to a holder for what no reader waits for.

        When thousands start they all miss what a few have, and would only wait there.
        """
        if now - holder.visited >= AGAIN:
            holder.visited, holder.visitors = now, 0
        holder.visitors += 1
        return holder.visitors <= VISITORS

    @staticmethod
    def _has(holder: Peer, piece: int) -> bool:
        return bool(holder.held >> piece & 1) and holder.shares

    @staticmethod
    def _usable(holder: Peer, peer: Peer, now: float) -> bool:
        return (
            holder is not peer
            and holder.shares
            and peer.failed.get(holder.host.id, float("-inf")) <= now
        )
