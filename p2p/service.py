"""Service: a scheduler that hosts connect to; the core in `scheduler` decides.

Tasks: per host its session's, and ``run``, which wakes the core when something ends by time. The
core is called between awaits only.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from random import Random

import trio

from chunkstore import Malformed

from . import wire
from .errors import Gone, Nonsense
from .messages import Body
from .scheduling.scheduler import Action, Scheduler, Settings
from .session import Deaf, Session
from .wire import Header, Kind, Request

logger = logging.getLogger(__name__)


class Service:
    """One scheduler."""

    def __init__(self, settings: Settings | None = None, random: Random | None = None) -> None:
        self.scheduler = Scheduler(settings or Settings(), random or Random(), trio.current_time())
        self._sessions: dict[bytes, Session] = {}
        self._due = self._wakes = math.inf
        """When the core is due, and until when `run` sleeps."""
        self._sooner = trio.Event()

    async def serve(self, session: Session) -> None:
        """Serve one host until its session ends."""
        caller = _Caller(self, session)
        try:
            await session.run(caller)
        finally:
            self.gone(session)

    async def run(self) -> None:
        """Do what time alone brings, until cancelled."""
        while True:
            self._sooner = trio.Event()
            self._wakes = self._due
            with trio.move_on_at(self._wakes):
                await self._sooner.wait()
            if trio.current_time() >= self._due:
                self.do(self.scheduler.tick(trio.current_time()))

    def enter(self, session: Session) -> None:
        """Let a host's session in; another one of it is over."""
        host = session.hello.host
        old = self._sessions.get(host)
        if old is not None:
            if old.remote != session.remote:
                raise Gone("another host has that name")
            old.end("it has connected anew")
        self._sessions[host] = session
        roles = [role.value for role in session.remote.roles]
        name = session.remote.name
        self.do(self.scheduler.connected(host, roles, trio.current_time(), name))

    def take(self, session: Session, body: Body) -> None:
        """Take a host's message; raises Malformed."""
        if self._sessions.get(session.hello.host) is session:
            self.do(self.scheduler.take(session.hello.host, body, trio.current_time()))

    def gone(self, session: Session) -> None:
        """Note that a session has ended."""
        if self._sessions.get(session.hello.host) is session:
            del self._sessions[session.hello.host]
            self.do(self.scheduler.gone(session.hello.host, trio.current_time()))

    def do(self, actions: Iterable[Action]) -> None:
        """Send what the core wants sent."""
        for host, body in actions:
            session = self._sessions.get(host)
            if session is not None:
                session.tell(body)
        self._due = self.scheduler.due()
        if self._due < self._wakes:  # a switch of tasks per message is much of what it costs
            self._sooner.set()

    def state(self) -> bytes:
        """Return what is known, as JSON."""
        return json.dumps(self.scheduler.state(trio.current_time())).encode()


class _Caller(Deaf):
    """A host, or somebody who wants to know the state."""

    def __init__(self, service: Service, session: Session) -> None:
        self._service = service
        self._session = session
        self._entered = False

    def heard(self, header: Header, body: Body | Request | None) -> None:
        """Take one frame."""
        if header.kind is Kind.STATUS:
            self._session.post(wire.state(self._service.state()))
            return
        if body is None or isinstance(body, Request) or header.kind < Kind.ANNOUNCE:
            raise Nonsense(f"{header.kind.name} to a scheduler")
        if not self._entered:
            self._entered = True
            self._service.enter(self._session)
        try:
            self._service.take(self._session, body)
        except Malformed as exc:
            logger.info("bad message host=%s %s", self._session.hello.host.hex(), exc)
            raise
