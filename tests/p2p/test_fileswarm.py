"""Files through a swarm in memory."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from chunkstore import Algorithm, Corrupt, Digest, Refused, Unreachable
from chunkstore.http import Url
from fixtures.faulty import Proper, Status
from fixtures.fileswarm import URL, FileSwarm, file_swarm
from p2p import messages
from p2p.files.task import PIECE_SIZE, FileTask
from p2p.security import Role

FILE = random.Random(7).randbytes(24 * PIECE_SIZE + 777)
OTHER = random.Random(8).randbytes(len(FILE))


@pytest.fixture
async def swarm(tmp_path: Path) -> AsyncIterator[FileSwarm]:
    async with file_swarm(tmp_path, FILE) as made:
        await made.start_scheduler()
        yield made


async def test_a_seed_reads_the_origin_once_for_all(swarm: FileSwarm, clock: MockClock) -> None:
    await swarm.host("seed", Role.SEED)
    hosts = [await swarm.host(f"peer{n}") for n in range(5)]
    assert await swarm.fetch_all(hosts) == [FILE] * 5
    assert swarm.asked_for == len(FILE) + 5  # and a byte each, to know which file it is
    assert [host.had("peer") for host in hosts] == [len(FILE)] * 5


async def test_without_a_seed_peers_read_the_origin_about_once(
    swarm: FileSwarm, clock: MockClock
) -> None:
    hosts = [await swarm.host(f"peer{n}") for n in range(5)]
    assert await swarm.fetch_all(hosts) == [FILE] * 5
    assert swarm.asked_for <= 1.25 * len(FILE)


async def test_one_host_alone_needs_nobody(swarm: FileSwarm, clock: MockClock) -> None:
    host = await swarm.host("peer")
    assert await host.fetch() == FILE
    assert host.had("origin") == len(FILE)


async def test_an_origin_that_is_gone_is_not_missed(swarm: FileSwarm, clock: MockClock) -> None:
    await swarm.host("seed", Role.SEED)
    await (await swarm.host("first")).fetch()
    swarm.server.gone = True
    late = await swarm.host("late")
    assert await late.fetch() == FILE
    assert late.had("peer") == len(FILE)


async def test_an_origin_that_is_gone_and_that_nobody_has_is_told(
    swarm: FileSwarm, clock: MockClock
) -> None:
    swarm.server.gone = True
    with pytest.raises(Unreachable):
        await (await swarm.host("peer")).fetch()


async def test_a_scheduler_that_is_not_there_costs_a_wait(
    swarm: FileSwarm, clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    swarm.end_scheduler()
    host = await swarm.host("peer")
    start = trio.current_time()
    assert await host.fetch() == FILE
    assert trio.current_time() - start < 60


test_a_scheduler_that_is_not_there_costs_a_wait = pytest.mark.logs("no session with scheduler")(
    test_a_scheduler_that_is_not_there_costs_a_wait
)


async def test_a_replaced_file_is_never_mixed(swarm: FileSwarm, clock: MockClock) -> None:
    await swarm.host("seed", Role.SEED)
    first = await swarm.host("first")
    assert await first.fetch() == FILE
    swarm.server.files = {"/f": OTHER}
    swarm.server.after = Proper(tag='"two"')
    hosts = [first, await swarm.host("second")]
    assert await swarm.fetch_all(hosts) == [OTHER] * 2


async def test_a_file_replaced_under_way_is_begun_anew_by_all(
    swarm: FileSwarm, clock: MockClock
) -> None:
    await swarm.host("seed", Role.SEED)
    hosts = [await swarm.host(f"peer{n}") for n in range(3)]
    requests = 0

    class Replacing(Proper):
        async def answer(self, asked, data, stream):  # type: ignore[no-untyped-def]
            nonlocal requests
            requests += 1
            new = requests > 5
            await Proper(tag='"two"' if new else '"one"').answer(
                asked, OTHER if new else FILE, stream
            )

    swarm.server.after = Replacing()
    assert await swarm.fetch_all(hosts) == [OTHER] * 3


async def test_what_headers_open_stays_with_who_has_them(
    swarm: FileSwarm, clock: MockClock
) -> None:
    await swarm.host("seed", Role.SEED)
    one, other = await swarm.host("one"), await swarm.host("other")
    headers = (("Authorization", "Bearer s3cret"),)
    assert await one.fetch(headers=headers) == FILE
    assert one.had("peer") == len(FILE)
    assert all(each.headers["authorization"] == "Bearer s3cret" for each in swarm.server.asked)
    swarm.server.after = Status(code=401)
    with pytest.raises(Refused):
        await other.fetch()
    assert swarm.service is not None
    assert b"s3cret" not in swarm.service.state()


async def test_what_a_fetch_has_left_in_a_cache_is_offered_to_others(
    swarm: FileSwarm, clock: MockClock
) -> None:
    one, other = await swarm.host("one"), await swarm.host("other")
    assert await one.fetch() == FILE
    keeper = await swarm.keep(one)
    await trio.sleep(1)
    assert await other.fetch() == FILE
    assert other.had("peer") == len(FILE)
    await keeper.close()


@pytest.mark.logs("reading the origin alone: .* hashes to|chunks kept apart|another digest")
async def test_lies_of_peers_are_found_by_the_files_digest_and_made_good(
    swarm: FileSwarm, clock: MockClock
) -> None:
    liar, victim = await swarm.host("liar"), await swarm.host("victim")
    lies = FILE[: 3 * PIECE_SIZE] + OTHER[3 * PIECE_SIZE : 4 * PIECE_SIZE] + FILE[4 * PIECE_SIZE :]
    swarm.server.files = {"/f": lies}
    assert await liar.fetch() == lies
    keeper = await swarm.keep(liar)
    await trio.sleep(1)
    swarm.server.files = {"/f": FILE}
    right = Digest.of(FILE, Algorithm.SHA256)
    assert await victim.fetch(digest=right) == FILE
    assert victim.had("peer") == len(FILE)
    await keeper.close()
    wrong = Digest.of(OTHER, Algorithm.SHA256)
    with pytest.raises(Corrupt, match="hashes to"):
        await victim.fetch(digest=wrong)


def publish(handle: int) -> messages.Publish:
    return messages.Publish(handle, 0, [b"\x01" * 32] * 8)


async def test_a_peer_cannot_publish_where_there_is_a_seed(
    swarm: FileSwarm, clock: MockClock
) -> None:
    await swarm.host("seed", Role.SEED)
    assert swarm.service is not None
    core = swarm.service.scheduler
    task = FileTask.of(Url.parse(URL)).id
    description = messages.Description("file", URL, len(FILE), 25, validator='"one"')
    core.connected(b"liar............", ["peer"], 0)
    core.take(b"liar............", messages.Announce("liar:1", "peer"), 0)
    core.take(b"liar............", messages.Join(0, task, description, [0, 25], True), 0)
    core.take(b"liar............", publish(0), 0)
    core.take(b"liar............", messages.Origin(0, 5, '"false"'), 0)
    core.take(b"liar............", messages.Leave(0), 0)
    host = await swarm.host("peer")
    assert await host.fetch() == FILE
