"""Download: a task's part at this host, from wishes for chunks to what is asked of whom.

The `Chooser` decides; this does what it says, with sessions to parents, the origin behind the
grants, and the scheduler's ear. Everything that happens is told to the chooser, which is asked at
once what follows from it.

Tasks: the callbacks of parents, schedulers and the cache are called in theirs and never await;
``run`` wakes the chooser when time alone changes something, and holds the reads of the origin.
Between two awaits wishes, asks and the chooser's books agree.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, MutableMapping, Sequence
from random import Random

import msgspec
import trio

from chunkstore import Buffer, ChunkstoreError, Corrupt, Unreachable

from .choosing.chooser import READER, Ask, Choice, Chooser
from .control import nobody
from .holdings import Holding
from .messages import Body, Complaint, Description, Failed, Have, Parent
from .parents import Neighbour, Parents
from .reads import Reads
from .ticket import Ticket
from .wire import Kind
from .wishes import Everything, Wish

logger = logging.getLogger(__name__)


class Download(Reads):
    """One task at this host."""

    def __init__(
        self,
        handle: int,
        task: bytes,
        description: Description,
        parents: Parents,
        holding: Holding,
        received: MutableMapping[str, int] | None = None,
    ) -> None:
        """Start nothing; bytes that come are added to *received*, ``peer`` and ``origin``."""
        self.handle = handle
        self.task = task
        self.description = description
        """For seeds."""
        self.outline = msgspec.structs.replace(description, headers=[])
        """For everybody else: what proves who we are is not in it."""
        super().__init__(Chooser(handle, task, self.outline, Random()), holding, received)
        self.told: Callable[[Body], None] = nobody
        """Set by whoever has a session with the task's scheduler."""
        self._parents = parents
        self._neighbours: dict[bytes, Neighbour] = {}
        self._complete = trio.Event()
        self.scheduled = False
        """There is a session with a scheduler that knows of this."""
        self._asks: dict[int, tuple[Neighbour, int]] = {}
        """What is open at parents: the chooser's number to theirs."""
        self._acting = self._again = False
        self._wake = math.inf
        self._poke = trio.Event()
        self.chooser.holds(holding.bits, trio.current_time())

    @property
    def name(self) -> bytes:
        """What schedulers know the task by."""
        return self.chooser.task

    # What readers want.

    async def bring(self, wishes: Sequence[Wish], urgent: Callable[[Wish], bool]) -> None:
        """Wait until every wish has come, or is *elsewhere*; raises what kept one from coming."""
        now = trio.current_time()
        if any(self.chooser.held >> wish.chunk.index & 1 for wish in wishes):
            self._holding.refresh()  # else they were evicted, and it was not noticed yet
        for wish in wishes:
            self._wishes[wish.chunk.index] = wish
            self.chooser.want(wish.chunk.index, READER if urgent(wish) else 1, now)
            self._look(wish)
        self.act()
        try:
            for wish in wishes:
                if not wish.done.is_set():  # what came already costs no turn
                    await wish.done.wait()
        finally:
            for wish in wishes:
                if not wish.done.is_set() and self._wishes.get(wish.chunk.index) is wish:
                    del self._wishes[wish.chunk.index]
                    self.chooser.unwant(wish.chunk.index)
            self.act()
        failures = [wish.failure for wish in wishes if wish.failure is not None]
        if failures:
            raise failures[0]

    def take_all(self, everything: Everything) -> None:
        """Get *everything*, in whatever order is best for all hosts together."""
        self._everything = everything
        self.chooser.want_all(True)
        if self.scheduled:
            for body in self.join():
                self.told(body)
        self.act()

    async def completed(self, patience: float) -> bool:
        """Wait until all is here; False when there was no scheduler for *patience* seconds."""
        while not self._complete.is_set():
            scheduled = self.scheduled
            with trio.move_on_after(patience):
                await self._complete.wait()
            if not scheduled and not self.scheduled:
                break
        return self._complete.is_set()

    def hurry(self, piece: int) -> None:
        """Note that a reader waits for a piece now."""
        if piece in self._wishes:
            self.chooser.want(piece, READER, trio.current_time())
            self.act()

    # What the scheduler says.

    def join(self) -> Sequence[Body]:
        """Return what a scheduler is told when there is a session with it."""
        self.scheduled = True
        return self.chooser.join(trio.current_time())

    def unscheduled(self) -> None:
        """Note that there is no session with the scheduler any more."""
        self.scheduled = False
        self.chooser.unscheduled(trio.current_time())
        self.act()

    def heard(self, body: Body) -> None:
        """Take what the scheduler says; raises Malformed."""
        logger.debug("heard %s", body)
        self.chooser.take(body, trio.current_time())
        self.act()

    # What parents say: a Follower.

    def met(self, parent: Parent) -> None:
        """Note that there is a session with a parent."""
        self.chooser.linked(parent.host, trio.current_time())
        self.act()

    def has(self, parent: Parent, body: Have) -> None:
        """Take what a parent has; raises Malformed."""
        logger.debug("has host=%s %s", parent.host.hex()[:8], body)
        if self.chooser.have(parent.host, body, trio.current_time()):
            self.act()

    def parted(self, parent: Parent, reason: str) -> None:
        """Note that there is no session with a parent any more."""
        self._leave(parent.host)
        self.chooser.unlinked(parent.host, trio.current_time())
        self.act()

    # What the cache says.

    def changed(self, added: int, dropped: int) -> None:
        """Note what came into the cache another way, or left it."""
        if not self._holding.is_gone:  # else this host is leaving
            self._note(added, dropped)
            self.act()

    def _note(self, added: int, dropped: int) -> None:
        now = trio.current_time()
        if added:
            self.chooser.holds(added, now)
            for piece in [piece for piece in self._wishes if added >> piece & 1]:
                self._look(self._wishes[piece])
        if dropped:
            self.chooser.dropped(dropped, now)

    # What is done about it.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do what time alone brings until cancelled; then nothing is asked of anybody any more."""
        self._holding.listen(self.changed)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                self.act()
                await self._watch()
        finally:
            self._nursery = None
            self._holding.unlisten(self.changed)
            for neighbour in self._neighbours.values():
                neighbour.unfollow(self.task)
            self._neighbours.clear()
            for wish in self._wishes.values():
                wish.end(Unreachable("the swarm was left"))
            self._wishes.clear()

    async def _watch(self) -> None:
        while True:
            self._poke = trio.Event()
            with trio.move_on_at(self._wake) as scope:
                await self._poke.wait()
            if scope.cancelled_caught:
                self._wake = math.inf
                self.act()

    def act(self) -> None:
        """Ask the chooser what to do, and do it; what that brings is asked about again."""
        if self._acting:
            self._again = True
            return
        self._acting = True
        try:
            self._again = True
            while self._again:
                self._again = False
                self._do(self.chooser.choose(trio.current_time()))
        finally:
            self._acting = False
        if self.chooser.complete:
            self._complete.set()
        elif self._complete.is_set():  # something was evicted
            self._complete = trio.Event()

    def _do(self, choice: Choice) -> None:
        for parent in choice.connect:
            self._connect(parent)
        for parent in choice.approach:
            self._connect(parent, quiet=True)
        for body in choice.control:
            logger.debug("told %s", body)
            self.told(body)
        for ask in choice.cancels:
            self._cancel(ask)
        for ask in choice.asks:
            self._ask(ask)
        for host, piece in choice.complaints:
            self._complain(host, piece)
        for host in choice.leave:
            self._leave(host)
        if choice.origin:
            self._read(choice.origin)
        if choice.wake < self._wake:
            self._poke.set()
        self._wake = choice.wake

    def _connect(self, parent: Parent, *, quiet: bool = False) -> None:
        neighbour = self._parents.get(parent)
        if neighbour is None:
            self.chooser.unlinked(parent.host, trio.current_time())
            self._again = True
            return
        self._neighbours[parent.host] = neighbour
        description = self.description if parent.kind == "seed" else self.outline
        neighbour.follow(self.task, description, self, quiet=quiet)

    def _leave(self, host: bytes) -> None:
        neighbour = self._neighbours.pop(host, None)
        if neighbour is not None:
            neighbour.unfollow(self.task)

    def _cancel(self, ask: Ask) -> None:
        neighbour, number = self._asks.pop(ask.number, (None, 0))
        if neighbour is not None:
            neighbour.cancel(number)

    def _complain(self, host: bytes, piece: int) -> None:
        neighbour = self._neighbours.get(host)
        if neighbour is not None:
            neighbour.tell(self.task, lambda handle: Complaint(handle, piece))

    def _ask(self, ask: Ask) -> None:
        wish, neighbour = self._wish(ask.piece), self._neighbours.get(ask.host)
        if wish is None or neighbour is None:
            self.chooser.absent(ask.number, trio.current_time())
            self._again = True
            return
        logger.debug("asked piece=%d host=%s", ask.piece, ask.host.hex()[:8])
        ticket = Ticket(self, ask, wish)
        number = neighbour.ask(self.task, ticket.request, ticket)
        if number:
            self._asks[ask.number] = neighbour, number

    # What comes of it.

    def began(self, ask: Ask, size: int) -> None:
        """Note that a piece of *size* bytes begins to come."""
        self.chooser.began(ask.number, size, trio.current_time())

    async def came(self, ask: Ask, wish: Wish, data: Buffer, stored_size: int) -> None:
        """Take a piece that a parent sent."""
        wish = self._wishes.get(ask.piece, wish)  # a reader may have come since
        if not wish.done.is_set():
            try:
                await self._deliver(wish, data)
            except Corrupt as exc:
                logger.warning("corrupt piece host=%s %s", ask.host.hex(), exc)
                self._settle(ask, self.chooser.corrupt)
                return
            except ChunkstoreError as exc:
                self._settle(ask, self.chooser.absent)
                self._end(wish, exc)
                return
            wish.counted(len(data), stored_size)
            self._received["peer"] = self._received.get("peer", 0) + len(data)
            self._landed(wish)
        logger.debug("came piece=%d host=%s", ask.piece, ask.host.hex()[:8])
        self._asks.pop(ask.number, None)
        self.chooser.arrived(ask.number, wish.chunk.size, trio.current_time())
        self._holding.note(wish.chunk.index)
        self.act()

    def damaged(self, ask: Ask, reason: str) -> None:
        """Note that what a parent sent is no piece at all."""
        logger.warning("corrupt piece host=%s %s", ask.host.hex(), reason)
        self._settle(ask, self.chooser.corrupt)

    def refused(self, ask: Ask, kind: Kind, body: Body | None) -> None:
        """Note an answer that is no piece."""
        now = trio.current_time()
        self._asks.pop(ask.number, None)
        if kind is Kind.BUSY:
            self.chooser.busy(ask.number, getattr(body, "retry_after", 0.5), now)
        elif kind is Kind.FAILED:
            reason = f"{body.code}: {body.text}" if isinstance(body, Failed) else "failed"
            self.chooser.failed(ask.number, reason[:200], now)
        else:
            self.chooser.absent(ask.number, now)
        self.act()

    def lost(self, ask: Ask) -> None:
        """Note that the session ended first; the chooser hears of that by ``parted``."""
        self._asks.pop(ask.number, None)

    def _settle(self, ask: Ask, tell: Callable[[int, float], None]) -> None:
        self._asks.pop(ask.number, None)
        tell(ask.number, trio.current_time())
        self.act()

    def rate(self, host: bytes) -> float:
        """Return the bytes per second that *host* was seen to send; 0: not known yet."""
        link = self.chooser.links.get(host)
        return link.pace.rate if link else 0.0
