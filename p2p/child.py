"""Child: what one child has asked for, and how it is answered.

Tasks: one that uploads, one that tells what is here, and of a seed one per piece that is being
fetched. ``_asked`` and ``_followed`` change only between awaits.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import partial

import trio

from chunkstore import ChunkstoreError

from . import runs, wire
from .errors import Gone, Nonsense
from .holdings import Holding
from .messages import Body, Busy, Complaint, Description, Failed, Follow, Have, Unfollow
from .packing import Packing
from .session import Deaf, Session
from .uploading import Fetcher, Uploading
from .wire import Header, Kind, Request

logger = logging.getLogger(__name__)

OPEN_REQUESTS = 64
"""Of one child; more are refused."""

FOLLOWED = 1024
"""Tasks of one child."""

PATIENCE = 2.0
"""Seconds that a request waits for a slot before the child hears that we are busy."""

RETRY_AFTER = 0.5
"""Seconds until a child that was refused should ask again."""

GATHERED = 0.01
"""Seconds for which changes are gathered into one HAVE."""

CHECKS = 16
"""Complaints of one child that wait to be looked into."""


@dataclass(slots=True)
class _Followed:
    """A task that a child follows."""

    task: bytes
    description: Description | None
    quiet: bool = False
    """It is told nothing."""
    holding: Holding | None = None
    told: int = 0
    """What it was told of."""
    whole: bool = True
    """It has to be told everything."""
    dirty: bool = True
    admitted: bool = False
    """The child may have it."""
    decided: trio.Event = field(default_factory=trio.Event)
    """Whether it may is known."""


@dataclass(slots=True)
class _Asked:
    """A request that is not answered yet."""

    request: Request
    number: int
    holding: Holding | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class Child(Deaf):
    """What one child has asked for."""

    nursery: trio.Nursery

    def __init__(self, server: Uploading, session: Session) -> None:
        self._server = server
        self._session = session
        self._followed: dict[int, _Followed] = {}
        self._asked: dict[int, _Asked] = {}
        """Not answered yet, by the request's number."""
        self._ready: list[_Asked] = []
        """Those that can be answered, the next one first."""
        self._work = trio.Event()
        self._news = trio.Event()
        self._checks = 0

    # What the child says.

    def heard(self, header: Header, body: Body | Request | None) -> None:
        """Take one frame."""
        if isinstance(body, Request):
            self._request(header.request, body)
        elif isinstance(body, Follow):
            self._follow(body)
        elif isinstance(body, Unfollow):
            self._unfollow(body.handle)
        elif isinstance(body, Complaint):
            self._complaint(body)
        elif header.kind is Kind.CANCEL:
            self._cancel(header.request)
        else:
            raise Nonsense(f"{header.kind.name} from a child")

    def _follow(self, body: Follow) -> None:
        if body.handle in self._followed or len(self._followed) >= FOLLOWED:
            raise Nonsense(f"FOLLOW of handle {body.handle}, or too many")
        followed = _Followed(body.task, body.description, body.quiet)
        self._followed[body.handle] = followed
        fetcher = self._server.fetcher
        if fetcher is None:
            self._admit(followed)
        else:
            self.nursery.start_soon(self._look_at, fetcher, followed)
        self._news.set()

    def _admit(self, followed: _Followed) -> None:
        followed.admitted = True
        followed.decided.set()
        holding = self._server.holdings.find(followed.task)
        if holding is not None:
            self.opened(holding)

    async def _look_at(self, fetcher: Fetcher, followed: _Followed) -> None:
        """Let a child have a task, if a seed's fetcher says so."""
        if not await fetcher.admits(followed.task, followed.description):
            logger.info("child not admitted task=%s child=%s", followed.task.hex()[:16], self._name)
            followed.decided.set()
            return
        self._admit(followed)
        if followed.holding is None and followed.description is not None:
            await fetcher.open(followed.task, followed.description)

    @property
    def _name(self) -> str:
        return str(self._session.remote)

    def _unfollow(self, handle: int) -> None:
        followed = self._followed.pop(handle, None)
        holding = followed and followed.holding
        if holding and all(other.holding is not holding for other in self._followed.values()):
            holding.unlisten(self._changed)

    def _request(self, number: int, request: Request) -> None:
        followed = self._followed.get(request.handle)
        if followed is None:
            raise Nonsense("REQUEST of a task that is not followed")
        if number in self._asked:
            raise Nonsense(f"request {number} twice")
        if len(self._asked) >= OPEN_REQUESTS:
            self._busy(number)
            return
        asked = self._asked[number] = _Asked(request, number, followed.holding)
        if self._has(asked):
            self._line_up(asked)
        elif self._server.fetcher is not None:
            self.nursery.start_soon(self._fetch, followed, asked)
        else:
            self._absent(asked)

    def _cancel(self, number: int) -> None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            asked.scope.cancel()
            if asked in self._ready:
                self._ready.remove(asked)

    def _complaint(self, body: Complaint) -> None:
        followed = self._followed.get(body.handle)
        self._server.tally.complaints += 1
        if followed and followed.holding and self._checks < CHECKS:
            self._checks += 1
            self.nursery.start_soon(self._check, followed.holding, body.piece)

    # What it is told.

    def opened(self, holding: Holding) -> None:
        """Note that a task has a holding now, if it is followed."""
        for followed in self._followed.values():
            if followed.task != holding.task or followed.holding is holding:
                continue
            if not followed.admitted:
                continue
            if followed.holding is None or followed.holding.is_gone:
                followed.holding = holding
                followed.dirty = True
                holding.listen(self._changed)
                self._news.set()

    def _changed(self, added: int, dropped: int) -> None:
        for followed in self._followed.values():
            if not followed.quiet:
                followed.dirty = True
                self._news.set()

    def close(self) -> None:
        """Stop listening to what changes here."""
        for handle in list(self._followed):
            self._unfollow(handle)

    async def tell(self) -> None:
        """Tell what can be had: at once, then what changes, gathered."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            for handle, followed in self._followed.items():
                if followed.dirty and not followed.quiet:
                    followed.dirty = False
                    self._tell(handle, followed)
            await trio.sleep(GATHERED)

    def _tell(self, handle: int, followed: _Followed) -> None:
        here = followed.holding.bits if followed.holding is not None else 0
        added, dropped = here & ~followed.told, followed.told & ~here
        whole, followed.whole, followed.told = followed.whole, False, here
        for part in runs.parts(added) if whole or added else ():
            self._session.tell(Have(handle, whole, part))
            whole = False
        if dropped:
            for part in runs.parts(dropped):
                self._session.tell(Have(handle, False, [], part))

    # What it is sent.

    def _has(self, asked: _Asked) -> bool:
        holding = asked.holding
        if holding is None:
            return False
        chunk = asked.request.chunk
        if chunk is None and (chunk := holding.chunk(asked.request.piece)) is not None:
            asked.request = replace(asked.request, chunk=chunk)
        return chunk is not None and holding.find(chunk) is not None

    def _line_up(self, asked: _Asked) -> None:
        """Put a request behind those that are as urgent."""
        place = len(self._ready)
        while place and self._ready[place - 1].request.priority > asked.request.priority:
            place -= 1
        self._ready.insert(place, asked)
        self._work.set()

    async def upload(self) -> None:
        """Answer what can be answered, one after the other."""
        while True:
            if not self._ready:
                self._work = trio.Event()
                await self._work.wait()
            if not self._ready:
                continue
            async with self._server.slots.turn(self._ready[0].request.priority, PATIENCE) as given:
                if not self._ready:
                    continue
                asked = self._ready.pop(0)
                if given:
                    await self._answer(asked)
                else:
                    self._busy(asked.number)

    async def _answer(self, asked: _Asked) -> None:
        holding, chunk = asked.holding, asked.request.chunk
        assert holding is not None
        assert chunk is not None
        file = holding.find(chunk)
        if file is None:
            self._absent(asked)
            return
        upload = self._server.upload(file, chunk)
        try:
            if not upload.in_memory:
                await trio.to_thread.run_sync(upload.page_in, limiter=self._server.disk)
            packing = Packing(upload) if asked.request.lz4 else None
            packed = packing and await packing.packed()
            size = len(packed) if packed else upload.size
            await self._server.pace.take(size)
            head = wire.piece_header(size, asked.number, lz4=bool(packed))
            await self._session.send(head, packed or upload)
        except (OSError, Gone) as exc:
            self._session.end(str(exc))
            return
        self._asked.pop(asked.number, None)
        self._server.tally.pieces += 1
        self._server.tally.size += size

    async def _fetch(self, followed: _Followed, asked: _Asked) -> None:
        """Have a seed get a piece."""
        fetcher = self._server.fetcher
        assert fetcher is not None
        with asked.scope:
            await followed.decided.wait()
            if not followed.admitted:
                self._absent(asked)
                return
            try:
                asked.request = await fetcher.fetch(
                    followed.task, followed.description, asked.request
                )
            except ChunkstoreError as exc:
                self._failed(asked, exc)
                return
            asked.holding = self._server.holdings.find(followed.task)
            if self._has(asked):
                self._line_up(asked)
            else:
                self._absent(asked)

    def _absent(self, asked: _Asked) -> None:
        self._asked.pop(asked.number, None)
        self._server.tally.absent += 1
        self._session.post(wire.bare(Kind.ABSENT, asked.number))

    def _busy(self, number: int) -> None:
        self._asked.pop(number, None)
        self._server.tally.busy += 1
        self._session.tell(Busy(RETRY_AFTER), number)

    def _failed(self, asked: _Asked, exc: ChunkstoreError) -> None:
        self._asked.pop(asked.number, None)
        self._server.tally.failed += 1
        logger.info("not seeded piece=%d reason=%s", asked.request.piece, exc)
        self._session.tell(Failed(type(exc).__name__.lower(), str(exc)[:1000]), asked.number)

    async def _check(self, holding: Holding, piece: int) -> None:
        """Verify our own copy of what a child found bad; it is dropped if it is."""
        intact = await trio.to_thread.run_sync(
            partial(holding.file.check, piece), limiter=self._server.disk
        )
        self._checks -= 1
        holding.refresh()
        logger.info("complaint piece=%d intact=%s child=%s", piece, intact, self._session.remote)
