"""Hosts that keep step: who start one program together, and all miss what one of them has just got.

Sent to that one together, each gets a ninth of its uplink and none gets ahead. So what a host wants
that takes only what is read waits here until a holder is free: each holder sends one such piece at
a time, to who has least on its way, of what is left the rarest piece, to who is furthest. All
uplinks carry something then, and the hosts stand one behind the other. What readers wait for goes
before what is fetched ahead of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from p2p import runs

from .resource import Peer, Task

GUESTS, AHEAD_GUESTS = 1, 2
"""Pieces that one host is to send at a time where a reader waits, and where none does: two halve
the uplink, which keeps the second host from passing on what it gets; but it is never idle."""
LOOKED_AT = 64
"""Of the pieces that a host has and others wait for, and of those who wait for one."""
LASTS_FIRST, LASTS_LEAST, LASTS_MOST = 2.0, 0.5, 30.0
"""Seconds for which a piece may be on its way until its sender counts as free again: who is to send
it is slow, perhaps, or who was sent there."""

Usable = Callable[[Peer, Peer, int, float], bool]
"""Says whether a peer may be sent to a holder for a piece."""
Send = Callable[[Peer, Peer, int, float], None]
"""Sends a peer to a holder for a piece."""


@dataclass(slots=True)
class Convoy:
    """Has the hosts of a task stand one behind the other; one for all tasks of a scheduler."""

    usable: Usable
    send: Send
    _freed: dict[Peer, None] = field(default_factory=dict)
    """Hosts with a guest less, or with more that others want."""

    def wait(self, peer: Peer, piece: int, now: float) -> None:
        """Let a peer wait for a piece."""
        task = peer.task
        task.waits.setdefault(piece, {}).setdefault(peer, now)
        task.waited |= 1 << piece

    def leave(self, peer: Peer, piece: int) -> None:
        """Let a peer wait no longer for a piece, wherever it was to come from."""
        self.depart(peer, piece)
        task = peer.task
        waits = task.waits.get(piece, {})
        waits.pop(peer, None)
        if not waits and task.waits.pop(piece, None) is not None:
            task.waited &= ~(1 << piece)

    def depart(self, peer: Peer, piece: int) -> None:
        """Note that a piece is no longer to come from where its peer was sent."""
        holder = peer.sent.pop(piece, None)
        if holder is not None:
            del peer.task.ways[peer, piece]
            holder.guests -= 1
            self._freed[holder] = None

    def seat(self, peer: Peer, holder: Peer, piece: int, now: float) -> None:
        """Note that a peer is sent to a holder."""
        self.leave(peer, piece)
        peer.sent[piece] = holder
        peer.task.ways[peer, piece] = now
        holder.guests += 1

    def came(self, peer: Peer, bits: int, now: float) -> None:
        """Learn how long pieces took that a peer was sent for."""
        for piece in runs.numbers(bits & runs.of(peer.sent)):
            peer.task.road.learn(now - peer.task.ways[peer, piece])

    def gained(self, holder: Peer) -> None:
        """Note that a host has more that others wait for."""
        self._freed[holder] = None

    def expire(self, task: Task, now: float) -> None:
        """Have those free again whose piece has been on its way for too long."""
        lasts = task.road.lasts(LASTS_FIRST, LASTS_LEAST, LASTS_MOST)
        for (peer, piece), began in list(task.ways.items()):
            if began + lasts > now:
                break
            self.depart(peer, piece)

    def patience(self, task: Task) -> float:
        """Return the seconds after which who waits is to ask again."""
        return 4 * task.road.lasts(LASTS_FIRST, LASTS_LEAST, LASTS_MOST)

    def room(self, now: float) -> None:
        """Send those who wait to hosts that are free."""
        while self._freed:
            freed, self._freed = self._freed, {}
            for holder in freed:
                if holder.task.by_host.get(holder.host.id) is holder:
                    while self._invite(holder, now):
                        pass

    def _invite(self, holder: Peer, now: float) -> bool:
        """Send somebody to a host, if it is free and anybody waits for what it has."""
        task = holder.task
        best: tuple[bool, int, int, int, float] | None = None
        chosen: tuple[Peer, int] | None = None
        for piece in islice(runs.numbers(holder.held & task.waited), LOOKED_AT):
            copies = len(task.holders.get(piece, ()))
            for peer, since in islice(task.waits[piece].items(), LOOKED_AT):
                ahead = not peer.urgent >> piece & 1
                if holder.guests >= (AHEAD_GUESTS if ahead else GUESTS):
                    continue
                coming = len(peer.sent) + task.grants.of(peer.host.id).bit_count()
                rank = (ahead, coming, copies, -peer.held.bit_count(), since)
                if (best is None or rank < best) and self.usable(holder, peer, piece, now):
                    best, chosen = rank, (peer, piece)
        if chosen is None:
            return False
        peer, piece = chosen
        for each in [piece, *self._beside(holder, peer, piece, now)]:
            self.send(peer, holder, each, now)
        return True

    def _beside(self, holder: Peer, peer: Peer, piece: int, now: float) -> list[int]:
        """Return what else a peer is sent to a holder for at once, where pieces are small."""
        task = holder.task
        count = task.handful - 1
        if not count:
            return []
        bits = peer.wanted & holder.held & task.waited & ~(1 << piece)
        found = [
            each
            for each in islice(runs.numbers(bits), LOOKED_AT)
            if peer in task.waits[each] and self.usable(holder, peer, each, now)
        ]
        return sorted(found, key=lambda each: not peer.urgent >> each & 1)[:count]
