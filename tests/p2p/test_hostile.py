"""Clients that mean harm, over real sockets and real TLS."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest
import trio

from chunkstore.blobcache import BlobCache
from fixtures.swarmcerts import SwarmCerts
from fixtures.swarmnet import hello
from p2p import messages, wire
from p2p.control import Control
from p2p.errors import Gone
from p2p.gate import MOST_STRANGERS, Gate
from p2p.holdings import Holdings
from p2p.messages import Announce, Body, Hello
from p2p.net import Tcp
from p2p.parents import Parents
from p2p.security import Identity, Papers, Role, Security
from p2p.server import Server
from p2p.service import Service
from p2p.slots import Pace
from p2p.wire import MAGIC


@asynccontextmanager
async def gate(security: Security, kind: str = "peer") -> AsyncIterator[tuple[str, Gate, Service]]:
    """Serve a scheduler, or who says that it is one, on a free port."""
    service = Service()
    made = Gate(security, Hello(wire.OLDEST, wire.NEWEST, b"gate" * 4, kind), service.serve)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        address = await nursery.start(Tcp(security).listen, "127.0.0.1:0", made.admit)
        yield address, made, service
        nursery.cancel_scope.cancel()


class Part:
    """A task whose scheduler is told its secrets, if it can prove to be one."""

    handle = 0
    name = bytes(32)

    def __init__(self) -> None:
        self.told: Callable[[Body], None] = self._nobody
        self.joined = trio.Event()
        self.tries = trio.Event()

    def _nobody(self, body: Body) -> None:
        pass

    def join(self) -> list[Body]:
        self.joined.set()
        return []

    def heard(self, body: Body) -> None:
        pass

    def unscheduled(self) -> None:
        self.tries.set()

    def act(self) -> None:
        pass


def announcement() -> Announce:
    return Announce("127.0.0.1:1", "peer")


@asynccontextmanager
async def host(security: Security, scheduler: str) -> AsyncIterator[tuple[Control, Part]]:
    """Run a host's word with a scheduler."""
    control = Control([scheduler], Tcp(security), hello(b"host"), announcement)
    part = Part()
    async with trio.open_nursery() as nursery:
        control.add(part)
        nursery.start_soon(control.run)
        yield control, part
        nursery.cancel_scope.cancel()


async def test_a_scheduler_by_certificate_is_told_everything(certs: SwarmCerts) -> None:
    scheduler = certs.security(Role.SCHEDULER)
    async with (
        gate(scheduler, "scheduler") as (address, _, _),
        host(certs.security(Role.PEER), address) as (_, part),
    ):
        with trio.fail_after(20):
            await part.joined.wait()


@pytest.mark.logs("no session with scheduler .* is no scheduler: its certificate says peer")
async def test_a_peer_that_poses_as_scheduler_is_told_nothing(certs: SwarmCerts) -> None:
    liar = certs.security(Role.PEER)
    async with (
        gate(liar, "scheduler") as (address, _, service),
        host(certs.security(Role.PEER), address) as (control, part),
    ):
        await settled(control)
        assert not part.joined.is_set()
        assert not control.up
        assert not service.scheduler.hosts


@pytest.mark.logs("no session with scheduler .* does not know the CA of our certificate")
async def test_a_foreign_certificate_is_refused_and_told_so(
    certs: SwarmCerts, foreign: SwarmCerts, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = foreign.papers(Role.PEER)
    stranger = Security(Identity(Papers(theirs.certificate, theirs.key, certs.ca)))
    caplog.set_level(logging.INFO)
    async with (
        gate(certs.security(Role.SCHEDULER), "scheduler") as (address, _, service),
        host(stranger, address) as (control, _),
    ):
        await settled(control)
        assert not control.up
        assert not service.scheduler.hosts
    assert any("its certificate is not trusted" in line for line in caplog.messages)


@pytest.mark.logs("no session with scheduler")
async def test_who_has_no_certificate_is_not_heard(
    certs: SwarmCerts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        gate(certs.security(Role.SCHEDULER), "scheduler") as (address, _, service),
        host(Security(), address) as (control, _),
    ):
        await settled(control)
        assert not service.scheduler.hosts
    assert any("it does not speak TLS" in line for line in caplog.messages)


async def settled(control: Control) -> None:
    """Wait until the scheduler was tried, and what came of it is known."""
    await until(lambda: all(link.tried for link in control._links.values()))
    await trio.sleep(0.1)


async def until(happened: Callable[[], object]) -> None:
    """Wait for what nobody tells of, because it happens to somebody else."""
    with trio.fail_after(20):
        while not happened():  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_a_peers_certificate_announces_no_seed(
    certs: SwarmCerts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with gate(certs.security(Role.SCHEDULER), "scheduler") as (address, _, service):
        async with Tcp(certs.security(Role.PEER)).dial(address, Role.SCHEDULER) as (line, _):
            told = [hello(b"liar"), messages.Announce("127.0.0.1:1", "seed")]
            await line.send(MAGIC + b"".join(map(wire.frame, told)))
            with trio.fail_after(20):
                while await line.receive_into(memoryview(bytearray(1000))):
                    pass
        assert not service.scheduler.sources.seeds
    assert any("its certificate does not say" in line for line in caplog.messages)


async def test_a_peer_that_poses_as_seed_is_not_asked(
    certs: SwarmCerts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A seed is told urls and headers, so its certificate is looked at before it is told any."""
    caplog.set_level(logging.INFO)
    heard: list[str] = []

    class Follower:
        def met(self, parent: messages.Parent) -> None:
            heard.append("met")

        def has(self, parent: messages.Parent, body: messages.Have) -> None:
            heard.append("has")

        def parted(self, parent: messages.Parent, reason: str) -> None:
            heard.append(reason)

    liar, security = certs.security(Role.PEER), certs.security(Role.PEER)
    with closing(BlobCache(tmp_path / "cache")) as cache:
        server = Server(Holdings(cache))
        made = Gate(liar, Hello(wire.OLDEST, wire.NEWEST, b"l" * 16, "seed"), server.serve)
        async with trio.open_nursery() as nursery:
            address = await nursery.start(Tcp(liar).listen, "127.0.0.1:0", made.admit)
            parents = Parents(Tcp(security), hello(b"child"), Pace(None))
            await nursery.start(parents.run)
            neighbour = parents.get(messages.Parent(b"l" * 16, address, "seed"))
            assert neighbour is not None
            secret = messages.Description("file", "http://a/f?token=1", 1, 1)
            neighbour.follow(bytes(32), secret, Follower())
            await until(lambda: heard)
            nursery.cancel_scope.cancel()
    assert heard == ["peer is no seed: its certificate says peer"]
    assert not server.tally.children


def connect(address: str, source: str) -> socket.socket:
    """Connect from another address of loopback, and say nothing."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), source_address=(source, 0), timeout=10)


async def test_a_flood_of_silent_connections_leaves_room_for_others() -> None:
    flood: list[socket.socket] = []
    async with gate(Security(), "scheduler") as (address, made, _):
        try:
            for _ in range(MOST_STRANGERS + 40):
                flood.append(await trio.to_thread.run_sync(connect, address, "127.0.0.2"))
            await until(lambda: made.refused >= 40)
            async with host(Security(), address) as (_, part):
                with trio.fail_after(20):
                    await part.joined.wait()
        finally:
            for each in flood:
                each.close()


async def test_a_flood_of_frames_ends_with_its_session() -> None:
    async with gate(Security(), "scheduler") as (address, _, service):
        async with Tcp(Security()).dial(address) as (line, _):
            await line.send(MAGIC + wire.frame(hello(b"flood")))
            await line.send(wire.frame(announcement()))
            blob = messages.Description("blob", "a", 1, 1)
            with trio.fail_after(60), suppress(OSError, Gone):
                for handle in range(100_000):
                    task = handle.to_bytes(32, "little")
                    await line.send(wire.frame(messages.Join(handle, task, blob, [])))
        await until(lambda: not service.scheduler.hosts)
        assert not service.scheduler.tasks
