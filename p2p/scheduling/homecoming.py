"""When the hosts of a task that had another scheduler are all back.

A scheduler that restarted, or took over from one that is gone, knows nothing; whoever held pieces
is on the way back to it, and a piece that is granted before its holders have come leaves the source
twice. So nothing is granted for a moment after each that comes back, with pieces or with parents.
Those parents are known by name: when every one that was named is here too, all are back, and the
moment is a short one. Who is named and does not come has died, perhaps: then it is over when nobody
has come for a while, and in any case after a few seconds. Downloads go on meanwhile, with the
parents that they had.
"""

from __future__ import annotations

from dataclasses import dataclass

from .agenda import Agenda
from .family import Family
from .resource import Peer, Task

BRIEF, QUIET = 0.05, 0.5
"""Seconds without another that comes back, where all are here that were named, and else: a host
dials again after 0.2 s, 0.4 s, at most 1 s (`control`), each at its own time."""


@dataclass(frozen=True, slots=True)
class Homecoming:
    """Waits for those who come back; one for all tasks of a scheduler."""

    family: Family
    agenda: Agenda
    started: float
    grace: float
    """Seconds that it takes at most."""

    def welcome(self, peer: Peer, parents: list[bytes], now: float) -> None:
        """See who else is to be waited for, as a newcomer and its *parents* tell."""
        task = peer.task
        back = bool(parents) or (bool(peer.held) and peer.shares)
        # what was kept from before is no sign that there was another scheduler
        ends = self.grace + (task.since if parents else self.started)
        if parents:
            peer.had = tuple(parents)
            task.awaited = task.awaited or set()
            task.awaited.update(each for each in parents if each not in task.by_host)
        if task.awaited is not None:
            task.awaited.discard(peer.host.id)
        if now < ends and (back or now < task.settled):
            known = task.awaited is not None and not task.awaited
            task.settled = min(ends, now + (BRIEF if known else QUIET))
            self.agenda.watch(task, now)

    def tend(self, task: Task, now: float) -> None:
        """End it when it is time."""
        if 0 < task.settled <= now:
            task.settled, task.awaited = 0.0, None
            self.family.adopt(task, now)
