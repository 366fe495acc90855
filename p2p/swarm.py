"""Swarm: everything that makes a process a host, wired: cache, uploads, parents, schedulers.

Tasks: all in the nursery of ``run``. A task is joined once, however many images ask for it.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import msgspec
import trio

from chunkstore import Blob
from chunkstore.blobcache import BlobCache

from . import wire
from .control import CONTROL, SCHEDULES, Control
from .download import Download
from .errors import Gone
from .gate import Gate
from .holdings import Holding, Holdings
from .line import joined, split
from .messages import Announce, Description, Hello
from .net import Net, Tcp
from .parents import Parents
from .security import Role, Security
from .server import SLOTS, Fetcher, Server, Terms
from .service import Service
from .session import Session
from .slots import Pace
from .task import blob_task, describe

logger = logging.getLogger(__name__)

FIRST_WORD = 0.5
"""Seconds to wait at the start for the schedulers."""


@dataclass(frozen=True, slots=True)
class Host:
    """What a host of the swarm is told."""

    schedulers: tuple[str, ...] = ()
    """``HOST:PORT`` each; none: nobody is asked, and it uploads to who knows it."""
    listen: str = ""
    """Where it uploads; empty: a free port of the address from which the scheduler is reached."""
    uploads: bool = True
    upload_rate: float | None = None
    """Bytes per second."""
    download_rate: float | None = None
    """Bytes per second, of what comes from peers."""
    slots: int = SLOTS
    """Uploads at once."""
    idc: str = ""
    location: str = ""
    """``country|province|city``."""
    kind: Role = Role.PEER


class Swarm:
    """This process as a host."""

    def __init__(
        self,
        cache: BlobCache,
        host: Host,
        security: Security,
        service: Service | None = None,
        net: Net | None = None,
    ) -> None:
        """Start nothing; with *service* this host is a scheduler as well, at the same address.

        *net* is TCP where nothing else is said.
        """
        self.id = secrets.token_bytes(16)
        features = [] if service is None else [SCHEDULES]
        self.hello = Hello(wire.OLDEST, wire.NEWEST, self.id, host.kind.value, features)
        self._service = service
        self._host = host
        self._security = security
        self.address = ""
        self._net: Net = net or Tcp(security)
        self.holdings = Holdings(cache)
        self.parents = Parents(self._net, self.hello, Pace(host.download_rate))
        self.server = Server(self.holdings, Terms(host.slots, host.upload_rate))
        self.gate = Gate(security, self.hello, self._serve)
        self.control = Control(host.schedulers, self._net, self.hello, self._announcement)
        self.received = {"peer": 0, "origin": 0}
        """Bytes of pieces by source, of all images."""
        self._downloads: dict[bytes, tuple[Download, trio.CancelScope]] = {}
        self._handles = itertools.count()
        self._joining = trio.Lock()
        self._nursery: trio.Nursery | None = None

    def seeding(self, fetcher: Fetcher) -> None:
        """Get pieces that are not here by *fetcher*: this host is a seed."""
        self.server.fetcher = fetcher

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take part until cancelled.

        Raises Unsafe for addresses beyond loopback without TLS, OSError where it cannot listen.
        """
        for address in self._host.schedulers:
            self._security.check(split(address)[0], to="dial")
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                nursery.start_soon(self.holdings.run)
                await nursery.start(self.parents.run)
                if self._host.uploads:
                    await self._listen(nursery)
                if self._service is not None:
                    nursery.start_soon(self._service.run)
                nursery.start_soon(self.control.run)
                if self._host.schedulers:
                    # Who reads before that would go to the origin for want of a scheduler.
                    with trio.move_on_after(FIRST_WORD):
                        await self.control.tried.wait()
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def join(self, blob: Blob, origin: str = "", proof: str | None = None) -> Download:
        """Take part in a blob's task; *origin* is where a seed finds it. Raises OSError.

        *proof* is what that origin wants to be shown, for a seed that asks who may have it.
        """
        description = describe(blob, origin)
        if proof:
            description = msgspec.structs.replace(description, headers=[("Authorization", proof)])
        return await self.join_task(blob_task(blob.id), description, blob)

    async def join_task(self, task: bytes, description: Description, blob: Blob) -> Download:
        """Take part in a task whose pieces are kept as *blob*; raises OSError."""
        async with self._joining:
            known = self._downloads.get(task)
            if known is not None:
                return known[0]
            holding = await self.holdings.open(task, blob)
            return await self._begin(task, description, holding)

    async def share(self, name: str) -> bool:
        """Offer what the cache has of a blob, by its files' name; False where it is damaged."""
        task = blob_task(name)
        if self.holdings.find(task) is not None:
            return True
        holding = await self.holdings.open_place(task, name)
        if holding is None:
            return False
        header = holding.file.map
        description = Description("blob", name, holding.file.size, header.chunk_count)
        await self._begin(task, description, holding)
        return True

    def handle(self) -> int:
        """Return a number for a task, which no other one has."""
        return next(self._handles)

    async def take_part(self, download: Download) -> None:
        """Let a download live, and its scheduler know."""
        if self._nursery is None:
            raise Gone("the swarm was left")
        scope = trio.CancelScope()
        await self._nursery.start(_run, download, scope)
        self._downloads[download.task] = download, scope
        self.control.add(download)

    def leave(self, download: Download) -> None:
        """Take part in a task no longer; what is here of it is still uploaded."""
        known = self._downloads.pop(download.task, None)
        if known is not None:
            self.control.remove(download)
            known[1].cancel()

    def statistics(self) -> Mapping[str, object]:
        """Say how things stand, ready for JSON."""
        server = self.server
        return {
            "host": self.id.hex(),
            "address": self.address,
            "schedulers": self.control.up,
            "parents": self.parents.sessions,
            "tasks": self.tasks,
            "uploads": asdict(server.tally)
            | {"now": server.slots.used, "most": server.slots.most, "limit": server.slots.count},
        }

    async def _serve(self, session: Session) -> None:
        """Serve a child, or a host that wants the scheduler."""
        if self._service is not None and CONTROL in session.hello.features:
            await self._service.serve(session)
        else:
            await self.server.serve(session)

    @property
    def tasks(self) -> int:
        """Tasks that this host takes part in."""
        return len(self._downloads)

    async def _begin(self, task: bytes, description: Description, holding: Holding) -> Download:
        download = Download(self.handle(), task, description, self.parents, holding)
        await self.take_part(download)
        return download

    async def _listen(self, nursery: trio.Nursery) -> None:
        asked = self._host.listen or joined(await self._own_address(), 0)
        actual = await nursery.start(self._net.listen, asked, self.gate.admit)
        host, port = split(actual)
        if not host or host in ("0.0.0.0", "::"):
            actual = joined(await self._own_address(), port)
        self.address = actual
        logger.info("uploading at address=%s", actual)

    async def _own_address(self) -> str:
        """Return this machine's address on the way to the first scheduler that has a route."""
        for address in self._host.schedulers:
            found = await _source_address(*split(address))
            if found:
                return found
        return "127.0.0.1"

    def _announcement(self) -> Announce:
        host = self._host
        name = socket.gethostname()[:100]
        return Announce(self.address, host.kind.value, host.idc, host.location, host.slots, name)


async def _run(
    download: Download,
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with scope:
        await download.run(task_status=task_status)


async def _source_address(host: str, port: int) -> str:
    """Return the address from which *host* is reached, empty where there is no way."""
    try:
        infos = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError:
        return ""
    for family, kind, protocol, _, address in infos:
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.connect(address)  # sends nothing
            except OSError:
                continue
            return str(probe.getsockname()[0])
    return ""
