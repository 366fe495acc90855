"""Who wants what, and who can be sent to whom for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from p2p import runs

from .convoy import Convoy
from .resource import Host, Peer

LISTED = 8
"""Holders remembered per piece."""
PER_HOLDER = 4
"""Who is sent to a new holder at once; they pass it on, and hold it a moment later."""
LOOKED_AT = 16
"""Of those who wait, among whom readers are looked for."""
SAMPLED = 40
"""Hosts among which one is looked for that has nothing to send."""
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
    convoy: Convoy = field(init=False)

    def __post_init__(self) -> None:
        self.convoy = Convoy(self._may_meet, self._send)

    def want(self, peer: Peer, bits: int, urgent: bool, now: float) -> None:
        """Note what a peer wants, and send it to holders."""
        task = peer.task
        bits &= ~peer.held
        again = bits & peer.wanted & (peer.urgent if urgent else ~peer.urgent)
        for piece in runs.numbers(bits & ~peer.wanted):
            task.wanters.setdefault(piece, {})[peer] = -AGAIN
        task.wanted |= bits
        peer.wanted |= bits
        if urgent:
            peer.urgent |= bits
        peer.orphans &= ~bits
        if not peer.bulk:
            for piece in runs.numbers(bits):
                if again >> piece & 1:
                    self.convoy.depart(peer, piece)
                if piece not in peer.sent:
                    self.convoy.wait(peer, piece, now)
        self.search(peer, bits, now)

    def unwant(self, peer: Peer, bits: int) -> None:
        """Forget what a peer wanted."""
        task = peer.task
        for piece in runs.numbers(bits & peer.wanted):
            self.convoy.leave(peer, piece)
            wanters = task.wanters[piece]
            del wanters[peer]
            if not wanters:
                del task.wanters[piece]
                task.wanted &= ~(1 << piece)
        peer.wanted &= ~bits
        peer.urgent &= ~bits
        peer.orphans &= ~bits

    def search(self, peer: Peer, bits: int, now: float) -> None:
        """Send a peer to holders of what it wants; where all of them failed it, it is an orphan."""
        task = peer.task
        bits &= task.counted()
        if peer.site.closed:
            # what is on its way to the site is shown to those who wait when it has come
            bits &= peer.site.held | peer.urgent & ~peer.site.grants.bits
        for piece in runs.numbers(bits):
            holder = self.holder(peer, piece, now)
            if holder is None:
                peer.orphans |= 1 << piece
            elif not peer.bulk:
                self.convoy.gained(self._free(peer, piece, holder, now))
            elif peer.urgent >> piece & 1 or self._welcome(holder, now):
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
        if bits & task.waited:
            self.convoy.gained(holder)

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
        if usable and not peer.bulk:
            least = min(each.guests for each in usable)
            usable = [each for each in usable if each.guests == least]
        return self.random.choice(usable) if usable else None

    def _free(self, peer: Peer, piece: int, holder: Peer, now: float) -> Peer:
        """Return a holder with nothing to send, where *holder* has and there are many others."""
        peers = peer.task.peers
        if not holder.guests or not peer.task.plenty >> piece & 1:
            return holder
        for other in self.random.sample(peers, min(SAMPLED, len(peers))):
            free = not other.guests and self._has(other, piece)
            if free and self._usable(other, peer, now):
                return other
        return holder

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
        if not peer.bulk:
            self.convoy.seat(peer, holder, piece, now)
        key = peer, holder.host
        self.given[key] = self.given.get(key, 0) | 1 << piece

    def _waiting(self, holder: Peer, piece: int, now: float) -> list[Peer]:
        """Return the few that a new holder is shown to: of the first who wait, readers first."""
        first: list[Peer] = []
        for peer, last in holder.task.wanters[piece].items():
            if now - last < AGAIN or len(first) >= LOOKED_AT:
                break
            if peer.bulk and self._may_meet(holder, peer, piece, now):
                first.append(peer)
        first.sort(key=lambda peer: not peer.urgent >> piece & 1)
        return first[:PER_HOLDER]

    def _may_meet(self, holder: Peer, peer: Peer, piece: int, now: float) -> bool:
        """Whether a piece may come from there: to a closed site only for readers, and but once."""
        if not self._usable(holder, peer, now):
            return False
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
