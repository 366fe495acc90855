"""Parents: the sessions to the hosts that pieces are asked of, one per host for all tasks.

Tasks: one per parent that dials, talks, and after a failure waits until it may dial again. What is
asked of a parent that has no session is lost at once; whoever follows it is told when it is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from chunkstore.direct import LARGEST, Buffers

from . import wire
from .errors import Gone, Nonsense, P2pError
from .messages import Body, Busy, Description, Failed, Follow, Have, Hello, Parent, Unfollow
from .net import Net
from .security import Role
from .session import Session, greeted
from .slots import Pace
from .wire import Header, Kind, Request

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
"""Seconds until a parent that could not be reached is dialled again; doubled each time."""

IDLE = 60.0
"""Seconds for which a session stays that nobody follows anything on."""

MOST = 256
"""Parents at once, of all tasks."""


class Ticket(Protocol):
    """One request at a parent; exactly one of the last three is called, and once."""

    most: int
    """Bytes that an answer may have."""

    def began(self, size: int) -> None:
        """Note that a piece of *size* bytes, as it was sent, begins to come."""
        ...

    async def came(self, data: memoryview, *, lz4: bool) -> None:
        """Take the piece; *data* is the session's again when this returns."""
        ...

    def refused(self, kind: Kind, body: Body | None) -> None:
        """Take an answer that is no piece: ABSENT, BUSY or FAILED."""
        ...

    def lost(self, reason: str) -> None:
        """Note that the session ended before there was an answer."""
        ...


class Follower(Protocol):
    """A task that wants to know what a parent has."""

    def met(self, parent: Parent) -> None:
        """Note that there is a session."""
        ...

    def has(self, parent: Parent, body: Have) -> None:
        """Take an update of what it has; raises Malformed."""
        ...

    def parted(self, parent: Parent, reason: str) -> None:
        """Note that there is none any more, or that it could not be made."""
        ...


@dataclass(slots=True)
class _Followed:
    task: bytes
    description: Description
    follower: Follower
    quiet: bool
    """It is told nothing of what the parent has."""
    handle: int = 0


class Neighbour:
    """One parent."""

    def __init__(self, parent: Parent, parents: Parents) -> None:
        self.parent = parent
        self._parents = parents
        self._session: Session | None = None
        self._followed: dict[bytes, _Followed] = {}
        self._by_handle: dict[int, _Followed] = {}
        self._handles = 0
        self._tickets: dict[int, Ticket] = {}
        self._numbers = 0
        self._buffer = bytearray()
        """For pieces that are too long for the kept ones of all parents."""
        self.wanted = trio.Event()

    @property
    def met(self) -> bool:
        """Whether there is a session now."""
        return self._session is not None

    def follow(
        self, task: bytes, description: Description, follower: Follower, *, quiet: bool = False
    ) -> None:
        """Tell *follower* what this parent has of a task, from now on; or let it only ask."""
        known = self._followed.get(task)
        if known is not None and (quiet or not known.quiet):
            return
        if known is not None:
            self.unfollow(task)
        followed = self._followed[task] = _Followed(task, description, follower, quiet)
        if self._session is not None:
            self._announce(self._session, followed)
            follower.met(self.parent)
        self.wanted.set()

    def unfollow(self, task: bytes) -> None:
        """No longer."""
        followed = self._followed.pop(task, None)
        if followed is not None and self._session is not None:
            del self._by_handle[followed.handle]
            self._session.tell(Unfollow(followed.handle))
        if not self._followed:
            self.wanted = trio.Event()

    def ask(self, task: bytes, request: Callable[[int], Request], ticket: Ticket) -> int:
        """Ask for a piece of a followed task; return the request's number. Never waits."""
        followed = self._followed.get(task)
        self._numbers += 1
        if self._session is None or followed is None:
            ticket.lost("no session")
            return 0
        self._tickets[self._numbers] = ticket
        self._session.post(request(followed.handle).encode(self._numbers))
        return self._numbers

    def cancel(self, number: int) -> None:
        """Say that an answer is of no use any more."""
        if self._tickets.pop(number, None) is not None and self._session is not None:
            self._session.post(wire.bare(Kind.CANCEL, number))

    def tell(self, task: bytes, body: Callable[[int], Body]) -> None:
        """Say something of a followed task."""
        followed = self._followed.get(task)
        if self._session is not None and followed is not None:
            self._session.tell(body(followed.handle))

    # The session's handler.

    def heard(self, header: Header, body: Body | Request | None) -> None:
        """Take one frame."""
        if isinstance(body, Have):
            self._have(body)
        elif header.kind in (Kind.ABSENT, Kind.BUSY, Kind.FAILED):
            assert body is None or isinstance(body, Busy | Failed)
            ticket = self._take(header.request)
            if ticket is not None:
                ticket.refused(header.kind, body)
        else:
            raise Nonsense(f"{header.kind.name} from a parent")

    def room(self, header: Header) -> memoryview | None:
        """Return where a piece goes; it may be one that was taken back."""
        ticket = self._tickets.get(header.request)
        if header.kind is not Kind.PIECE or not 0 < header.request <= self._numbers:
            raise Nonsense(f"{header.kind.name} that nobody asked for")
        if ticket is None:
            return None
        if header.size > ticket.most:
            raise Nonsense(f"PIECE of {header.size} bytes, asked for {ticket.most}")
        ticket.began(header.size)
        if header.size <= LARGEST:
            return self._parents.buffers.take(header.size)
        if len(self._buffer) < header.size:
            self._buffer = bytearray(header.size)
        return memoryview(self._buffer)

    async def piece(self, header: Header, data: memoryview) -> None:
        """Hand a piece to who asked for it."""
        ticket = self._take(header.request)
        if ticket is not None:
            await ticket.came(data, lz4=bool(header.flags & wire.LZ4_BLOCK))
        await self._parents.pace.take(len(data))
        self._parents.buffers.give(data)

    def _have(self, body: Have) -> None:
        followed = self._by_handle.get(body.handle)
        if followed is None:
            return  # it had not heard UNFOLLOW yet
        followed.follower.has(self.parent, body)

    def _take(self, number: int) -> Ticket | None:
        return self._tickets.pop(number, None)

    def _announce(self, session: Session, followed: _Followed) -> None:
        followed.handle = self._handles
        self._by_handle[self._handles] = followed
        self._handles += 1
        description, quiet = followed.description, followed.quiet
        session.tell(Follow(followed.handle, followed.task, description, quiet))

    # The life of the session.

    async def live(self) -> None:
        """Have a session as long as anybody follows anything here."""
        pause = FIRST_PAUSE
        while True:
            with trio.move_on_after(IDLE) as idle:
                await self.wanted.wait()
            if idle.cancelled_caught:
                return
            since = trio.current_time()
            reason = await self._once()
            logger.info("parent parted address=%s reason=%s", self.parent.address, reason)
            self._part(reason)
            pause = FIRST_PAUSE if trio.current_time() - since > LONGEST_PAUSE else pause
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _once(self) -> str:
        """Hold one session; return why it ended."""
        parents = self._parents
        role = Role.SEED if self.parent.kind == "seed" else Role.PEER
        try:
            async with parents.net.dial(self.parent.address, role) as (line, remote):
                session = await greeted(line, remote, parents.hello, dialled=True)
                if session.hello.host != self.parent.host:
                    raise Gone("another host lives there now")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._leave_when_idle, session)
                    self._meet(session)
                    await session.run(self)
                    nursery.cancel_scope.cancel()
                return session.reason
        except P2pError as exc:
            return str(exc)

    def _meet(self, session: Session) -> None:
        self._session = session
        for followed in list(self._followed.values()):
            self._announce(session, followed)
            followed.follower.met(self.parent)

    def _part(self, reason: str) -> None:
        self._session = None
        self._by_handle.clear()
        self._handles = 0
        tickets, self._tickets = list(self._tickets.values()), {}
        for ticket in tickets:
            ticket.lost(reason)
        for followed in list(self._followed.values()):
            followed.follower.parted(self.parent, reason)

    async def _leave_when_idle(self, session: Session) -> None:
        while True:
            await trio.sleep(IDLE)
            if not self._followed:
                session.end("nothing is followed any more")


class Parents:
    """All parents of a host."""

    def __init__(self, net: Net, hello: Hello, pace: Pace) -> None:
        self.net = net
        self.hello = hello
        self.pace = pace
        """What all pieces that come are held to."""
        self.buffers = Buffers()
        """What pieces are received into."""
        self._neighbours: dict[tuple[bytes, str], Neighbour] = {}
        self._nursery: trio.Nursery | None = None

    def get(self, parent: Parent) -> Neighbour | None:
        """Return the parent, dialling it if need be; None where there are too many."""
        key = (parent.host, parent.address)
        found = self._neighbours.get(key)
        if found is None and self._nursery is not None and len(self._neighbours) < MOST:
            found = self._neighbours[key] = Neighbour(parent, self)
            self._nursery.start_soon(self._keep, key, found)
        return found

    async def _keep(self, key: tuple[bytes, str], neighbour: Neighbour) -> None:
        try:
            await neighbour.live()
        finally:
            del self._neighbours[key]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the sessions until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    @property
    def sessions(self) -> int:
        """Parents that there is a session with."""
        return sum(neighbour.met for neighbour in self._neighbours.values())
