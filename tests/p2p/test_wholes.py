"""Files that are known by one checksum each, between hosts, in virtual time."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from chunkstore import Blob, Chunk, Codec, Digest, Extent
from chunkstore.blobcache import BlobCache
from chunkstore.checks import Checks
from chunkstore.checksum import Checksum, Kind
from chunkstore.imagestore import ImageStore
from chunkstore.ledger import Ledger
from chunkstore.memory import MemoryOrigin
from chunkstore.originchunks import OriginChunks
from chunkstore.stack import Counted
from chunkstore.whole import STEP, Whole, placeholder
from fixtures.blobs import make_blob
from fixtures.community import Community, FlippedUpload
from p2p.files.wholes import Wholes, WholeSource
from p2p.security import Security
from p2p.swarm import Host, Swarm

COUNT = 4
DATA = random.Random(5).randbytes((COUNT - 1) * STEP + 1234)
CHECKSUM = Checksum(Kind.SHA256, hashlib.sha256(DATA).digest())
BLOB = Blob(CHECKSUM.raw.hex(), len(DATA), len(DATA), COUNT)
WHOLE = Whole("weights", len(DATA), CHECKSUM, BLOB.id, 0, 0)


def extent(index: int) -> Extent:
    start = index * STEP
    size = min(STEP, len(DATA) - start)
    digest = placeholder(CHECKSUM, index)
    return Extent(BLOB, Chunk(index, digest, start, size, start, size, Codec.NONE), 0, size)


class Node:
    """A host that has mounted a model of one file."""

    def __init__(self, cache: BlobCache, swarm: Swarm) -> None:
        self.cache = cache
        self.ledger = Ledger()
        self.origin = MemoryOrigin({BLOB.id: DATA})
        self.swarm = swarm
        self.checks = Checks(cache, {BLOB.id: [WHOLE]})
        self.dropped = trio.Event()
        wholes = Wholes(swarm, cache, self.checks.find)
        origin = Counted(OriginChunks(self.origin), "origin", self.ledger)
        source = WholeSource(wholes, origin, self.ledger)
        owner = Digest.of(b"image")
        self.store = ImageStore(
            cache, source, owner=owner, deadline=30, ledger=self.ledger, open_shelf=self.checks
        )
        source.watch(self.store.demand)
        self.wholes = wholes

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with closing(self.cache):
            await self._run(task_status)

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.swarm.run)
            await nursery.start(self.store.run)
            await self.store.prepare([BLOB])
            await self.wholes.join(BLOB)
            nursery.start_soon(self.checks.run, self._wrong)
            task_status.started()
            await trio.sleep_forever()

    async def _wrong(self, whole: Whole) -> None:
        self.dropped.set()

    async def read(self, *indices: int) -> bytes:
        wanted = indices or range(COUNT)
        return b"".join([bytes(await self.store.read([extent(index)])) for index in wanted])

    async def checked(self) -> None:
        """Wait until the file was checked, and others were told."""
        (holding,) = self.swarm.holdings
        with trio.fail_after(60):
            while holding.bits.bit_count() < COUNT:  # noqa: ASYNC110  # a thread is at it
                await trio.sleep(0.1)
        await trio.sleep(1)
        assert self.checks.unverified == []

    def came(self, source: str) -> int:
        tally = self.ledger.tallies.get(source)
        return tally.chunks if tally is not None else 0


Add = Callable[..., Awaitable[Node]]


@pytest.fixture
async def add(tmp_path: Path, nursery: trio.Nursery, clock: MockClock) -> Add:
    """Return what adds a host to a swarm."""
    community = Community(tmp_path, make_blob([4096]), nursery)
    await community.schedule()

    async def added(name: str, *, lies: bool = False) -> Node:
        cache = BlobCache(tmp_path / name)
        host = Host(schedulers=("scheduler:1",), listen=f"{name}:0")
        swarm = Swarm(cache, host, Security(insecure=True), net=community.net)
        if lies:
            swarm.server.upload = FlippedUpload
        node = Node(cache, swarm)
        await nursery.start(node.run)
        return node

    return added


async def test_a_file_that_was_checked_is_given_to_others(add: Add, clock: MockClock) -> None:
    one = await add("one")
    assert await one.read() == DATA
    await one.checked()
    other = await add("other")
    assert await other.read() == DATA
    assert (other.came("peer"), other.came("origin")) == (COUNT, 0)
    await other.checked()
    assert not other.dropped.is_set()


async def test_what_was_not_checked_is_given_to_nobody(add: Add, clock: MockClock) -> None:
    one = await add("one")
    assert await one.read(0, 1) == DATA[: 2 * STEP]
    other = await add("other")
    await trio.sleep(2.2)
    start = trio.current_time()
    assert await other.read(0, 1) == DATA[: 2 * STEP]
    assert (other.came("peer"), other.came("origin")) == (0, 2)
    assert trio.current_time() - start < 0.1, "nor does anybody wait for it"


async def test_who_was_there_first_hears_of_what_is_checked_later(
    add: Add, clock: MockClock
) -> None:
    other = await add("other")
    one = await add("one")
    assert await one.read() == DATA
    await one.checked()
    assert await other.read() == DATA
    assert other.came("peer") == COUNT


@pytest.mark.logs("file dropped")
async def test_after_a_lie_the_file_comes_from_the_hub_alone(add: Add, clock: MockClock) -> None:
    liar = await add("liar", lies=True)
    assert await liar.read() == DATA
    await liar.checked()
    other = await add("other")
    assert await other.read() != DATA, "believed, as the hub is"
    await other.dropped.wait()
    assert await other.read() == DATA
    assert (other.came("peer"), other.came("origin")) == (COUNT, COUNT)
    await other.checked()
