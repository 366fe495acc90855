"""Control: this host's word with its schedulers.

A task belongs to the first of the schedulers, in the order of rendezvous hashing, that there is a
session with; when that ends, the next one is told everything, and when a better one comes back,
that one. Downloads go on meanwhile with the parents they know.

Tasks: one per scheduler that dials, talks, and waits until it dials again. Who is told what changes
only between awaits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import msgspec
import trio

from . import rendezvous
from .errors import Gone, Nonsense, P2pError, Unsafe
from .messages import Announce, Aside, Body, Hello, Leave
from .net import Net
from .security import Role
from .session import Deaf, Session, greeted
from .wire import Header, Request

logger = logging.getLogger(__name__)

CONTROL, SCHEDULES = "control", "schedules"
"""Features: the dialler wants a scheduler; the acceptor is one, whatever else it is."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 1.0
"""Seconds until a scheduler that could not be reached is dialled again."""


class Part(Protocol):
    """A task that a scheduler is to hear of."""

    handle: int
    told: Callable[[Body], None]
    """Set to what passes messages on."""

    @property
    def name(self) -> bytes:
        """The task's, by which its scheduler is found."""
        ...

    def join(self) -> Sequence[Body]:
        """Return what a scheduler is told first."""
        ...

    def heard(self, body: Body) -> None:
        """Take what it says; raises Malformed."""
        ...

    def unscheduled(self) -> None:
        """Note that there is none any more."""
        ...

    def act(self) -> None:
        """Do what follows."""
        ...


class Control:
    """The sessions with all schedulers."""

    def __init__(
        self,
        schedulers: Sequence[str],
        net: Net,
        hello: Hello,
        announce: Callable[[], Announce],
    ) -> None:
        """Start nothing; *announce* returns what this host says of itself."""
        self._addresses = list(dict.fromkeys(schedulers))
        self._links = {
            address: _Link(self, address, net, hello, announce) for address in self._addresses
        }
        self._downloads: dict[Part, _Link | None] = {}
        self.tried = trio.Event()
        """Every scheduler was reached, or could not be."""

    def add(self, download: Part) -> None:
        """Have *download* take part in its task."""
        self._downloads[download] = None
        self._settle(download)

    def remove(self, download: Part) -> None:
        """Leave a task."""
        link = self._downloads.pop(download, None)
        if link is not None:
            link.leave(download)

    def settle(self) -> None:
        """Give every task to the best scheduler that is there now."""
        if all(link.tried for link in self._links.values()):
            self.tried.set()
        for download in list(self._downloads):
            self._settle(download)

    def _settle(self, download: Part) -> None:
        before, now = self._downloads[download], self._best(download.name)
        if before is now:
            return
        self._downloads[download] = now
        if before is not None:
            before.leave(download)
        if now is None:
            download.unscheduled()
        else:
            now.enter(download)

    def _best(self, task: bytes) -> _Link | None:
        for address in rendezvous.schedulers(self._addresses, task):
            link = self._links[address]
            if link.is_up:
                return link
            if not link.tried:
                return None  # a moment, and we know
        return None

    async def run(self) -> None:
        """Hold the sessions until cancelled; raises Unsafe where that would be."""
        async with trio.open_nursery() as nursery:
            for link in self._links.values():
                nursery.start_soon(link.run)

    @property
    def up(self) -> list[str]:
        """The schedulers that there is a session with."""
        return [address for address, link in self._links.items() if link.is_up]

    def announce(self) -> None:
        """Tell all schedulers what this host is now."""
        for link in self._links.values():
            link.announce()


class _Link(Deaf):
    """One scheduler."""

    def __init__(
        self,
        control: Control,
        address: str,
        net: Net,
        hello: Hello,
        announcement: Callable[[], Announce],
    ) -> None:
        self._control = control
        self._address = address
        self._net = net
        self._hello = msgspec.structs.replace(hello, features=[*hello.features, CONTROL])
        self._announcement = announcement
        self._session: Session | None = None
        self._downloads: dict[int, Part] = {}
        self.tried = False
        """It was reached, or could not be."""

    @property
    def is_up(self) -> bool:
        return self._session is not None

    def enter(self, download: Part) -> None:
        """Take part in a task here."""
        assert self._session is not None
        self._downloads[download.handle] = download
        download.told = partial(self._tell, self._session)
        for body in download.join():
            self._session.tell(body)
        download.act()

    def leave(self, download: Part) -> None:
        """Take part in it here no longer."""
        if self._downloads.pop(download.handle, None) and self._session is not None:
            self._session.tell(Leave(download.handle))
        download.told = nobody

    def announce(self) -> None:
        """Say what this host is."""
        if self._session is not None:
            self._session.tell(self._announcement())

    def heard(self, header: Header, body: Body | Request | None) -> None:
        """Take a scheduler's word."""
        if isinstance(body, Aside):
            logger.info("set aside host=%s reason=%s", body.host.hex(), body.reason)
            for download in list(self._downloads.values()):
                download.heard(body)
            return
        handle = getattr(body, "handle", None)
        if body is None or isinstance(body, Request) or handle is None:
            raise Nonsense(f"{header.kind.name} from a scheduler")
        known = self._downloads.get(handle)
        if known is not None:  # else it had not heard LEAVE yet
            known.heard(body)

    async def run(self) -> None:
        """Have a session, again and again."""
        pause = FIRST_PAUSE
        while True:
            since = trio.current_time()
            reason = await self._once()
            log = logger.warning if self.is_up or not self.tried else logger.debug
            log("no session with scheduler address=%s reason=%s", self._address, reason)
            self._session, self.tried = None, True
            self._control.settle()
            pause = FIRST_PAUSE if trio.current_time() - since > LONGEST_PAUSE else pause
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _once(self) -> str:
        try:
            async with self._net.dial(self._address, Role.SCHEDULER) as (line, remote):
                session = await greeted(line, remote, self._hello, dialled=True)
                if not _schedules(session.hello):
                    raise Gone(f"that is a {session.hello.kind[:20]}, not a scheduler")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._begin, session)
                    await session.run(self)
                    nursery.cancel_scope.cancel()
                return session.reason
        except Unsafe:
            raise
        except P2pError as exc:
            return str(exc)

    async def _begin(self, session: Session) -> None:
        logger.info("session with scheduler address=%s", self._address)
        session.tell(self._announcement())
        self._session, self.tried = session, True
        self._control.settle()

    def _tell(self, session: Session, body: Body) -> None:
        session.tell(body)


def _schedules(hello: Hello) -> bool:
    return hello.kind == Role.SCHEDULER.value or SCHEDULES in hello.features


def nobody(body: Body) -> None:
    """Tell nobody."""
