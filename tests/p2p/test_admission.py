"""A seed with credentials gives private blobs to hosts that may read them themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from chunkstore import ChunkSource
from chunkstore.http import Client, Deadlines
from chunkstore.origins.reference import Reference
from chunkstore.origins.registry import Registry
from fixtures.blobs import make_blob
from fixtures.faulty import Asked, Fault, FaultyServer, Stream, head
from fixtures.memorynet import MemoryNet
from fixtures.swarmnet import Parent
from p2p import messages
from p2p.admission import REMEMBERED, Admission
from p2p.holdings import Holding
from p2p.messages import Description
from p2p.seed import Seeding
from p2p.task import blob_task
from p2p.wire import Kind, Priority, Request

BLOB = "ab" * 32
PRIVATE, PUBLIC, EVIL = (
    "oci://private.example/app",
    "oci://public.example/app",
    "oci://evil.example/x",
)
RIGHT, WRONG = "Bearer right", "Bearer wrong"


@dataclass(frozen=True, slots=True)
class Guarded(Fault):
    """Wants to see a token."""

    async def answer(self, asked: Asked, data: bytes | None, stream: Stream) -> None:
        if asked.headers.get("authorization") == RIGHT:
            await Fault.answer(self, asked, data, stream)
            return
        realm = ("WWW-Authenticate", 'Basic realm="private"')
        await stream.send_all(head(401, [realm, ("Content-Length", "0")]))


class Registries:
    """A private registry, a public one, and one that admits everybody to everything."""

    def __init__(self, nursery: trio.Nursery) -> None:
        files = {f"/v2/{name}/blobs/sha256:{BLOB}": b"data" for name in ("app", "x")}
        self.servers = {
            "private.example": FaultyServer(files, after=Guarded()),
            "public.example": FaultyServer(files),
            "evil.example": FaultyServer(files),
        }
        net = MemoryNet(nursery)
        for host, server in self.servers.items():
            net.add(host, server.serve)
        self.client = Client(dial=net.dial, deadlines=Deadlines(progress=5, connect=5))
        self.net = net

    def anonymous(self, where: str) -> Registry | None:
        if where.startswith("http"):
            return None
        named = Reference.parse(where.removeprefix("oci://"))
        return Registry(named, self.client, plain_http=True)


@pytest.fixture
async def registries(nursery: trio.Nursery) -> AsyncIterator[Registries]:
    made = Registries(nursery)
    with made.client:
        yield made


def wish(origin: str, proof: str = "") -> Description:
    headers = [("Authorization", proof)] if proof else []
    return Description("blob", BLOB, 4, 1, origin, headers=headers)


ANSWERS = [
    (wish(PUBLIC), True),
    (wish(PRIVATE), False),
    (wish(PRIVATE, WRONG), False),
    (wish(PRIVATE, RIGHT), True),
    (wish(PRIVATE, "Bearer a\r\nX: y"), False),
    (wish("http://images.example/app"), True),
    (wish("oci://gone.example/app", RIGHT), False),
    (Description("blob", "no-digest", 4, 1, PRIVATE), False),
]


@pytest.mark.parametrize(("description", "admitted"), ANSWERS)
async def test_who_may_read_at_the_registry_is_admitted(
    registries: Registries, description: Description, admitted: bool, autojump_clock: MockClock
) -> None:
    assert await Admission(registries.anonymous).admits(description) is admitted


async def test_answers_are_remembered_for_a_while(
    registries: Registries, autojump_clock: MockClock
) -> None:
    admission = Admission(registries.anonymous)
    asked = registries.servers["private.example"].asked
    assert await admission.admits(wish(PRIVATE, RIGHT))
    count = len(asked)
    assert await admission.admits(wish(PRIVATE, RIGHT))
    assert len(asked) == count
    await trio.sleep(REMEMBERED + 1)
    assert await admission.admits(wish(PRIVATE, RIGHT))
    assert len(asked) > count


async def test_a_registry_that_does_not_answer_admits_nobody(
    registries: Registries, autojump_clock: MockClock
) -> None:
    registries.net.silent.add("private.example")
    assert not await Admission(registries.anonymous).admits(wish(PRIVATE, RIGHT))


def nowhere(where: str) -> AbstractAsyncContextManager[ChunkSource]:
    raise AssertionError("nothing is read")


async def test_another_registry_does_not_open_what_came_from_this_one(
    registries: Registries, tmp_path: Path, autojump_clock: MockClock
) -> None:
    parent = Parent(tmp_path / "cache")
    admission = Admission(registries.anonymous)
    seeding = Seeding(parent.cache, parent.holdings, nowhere, admission.admits)
    task = blob_task(BLOB)
    assert await seeding.admits(task, wish(PRIVATE, RIGHT))
    assert await admission.admits(wish(EVIL))
    assert not await seeding.admits(task, wish(EVIL))
    assert not await seeding.admits(task, None)
    assert not await seeding.admits(bytes(32), wish(PRIVATE, RIGHT))
    parent.cache.close()


class Strict:
    """A fetcher that admits who says the word."""

    def __init__(self) -> None:
        self.fetched = 0

    async def admits(self, task: bytes, description: Description | None) -> bool:
        await trio.sleep(0.5)
        return description is not None and description.headers == [("Authorization", RIGHT)]

    async def open(self, task: bytes, description: Description) -> Holding | None:
        return None

    async def fetch(
        self, task: bytes, description: Description | None, request: Request
    ) -> Request:
        self.fetched += 1
        return request


MADE = make_blob([8192] * 4)


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    made = Parent(tmp_path / "cache")
    made.server.fetcher = Strict()
    yield made
    made.cache.close()


@pytest.mark.parametrize(("proof", "admitted"), [(RIGHT, True), (WRONG, False)])
async def test_who_is_not_admitted_hears_of_nothing_and_gets_nothing(
    parent: Parent, proof: str, admitted: bool, autojump_clock: MockClock
) -> None:
    parent.put(MADE)
    await parent.open(MADE)
    chunk = MADE.chunks[1]
    async with parent.child() as (session, listener):
        described = Description("blob", MADE.blob.id, 1, 4, headers=[("Authorization", proof)])
        session.tell(messages.Follow(0, blob_task(MADE.blob.id), described))
        request = Request(0, chunk, chunk.index, Priority.READER, size=chunk.size)
        session.post(request.encode(1))
        await listener.until(lambda: listener.pieces or listener.requests(Kind.ABSENT))
        await trio.sleep(1)
        haves = [body for body in listener.bodies(Kind.HAVE) if isinstance(body, messages.Have)]
    assert bool(listener.pieces) is admitted
    assert any(have.add for have in haves) is admitted
