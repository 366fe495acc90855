"""A file at a url into the cache and out of it, without a swarm, in virtual time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from chunkstore import CacheUnusable, Changed, Corrupt, Digest, Missing, Refused, Unreachable
from chunkstore.blobcache import BlobCache
from chunkstore.digest import Algorithm
from chunkstore.http import Client, Deadlines, Request, Url
from chunkstore.origins.url import UrlFile
from fixtures.faulty import (
    Cut,
    Dated,
    Fault,
    FaultyServer,
    Proper,
    Stall,
    Status,
    Streamed,
    UntilClosed,
    Whole,
    redirect,
)
from fixtures.memorynet import MemoryNet
from p2p.files.fetching import CHANGES, Fetching
from p2p.files.store import label
from p2p.files.task import PIECE_SIZE, FileTask

FILE = random.Random(5).randbytes(80 * PIECE_SIZE + 12345)
"""Three ranges of 8 MiB."""
OTHER = random.Random(6).randbytes(len(FILE))
SMALL = FILE[: PIECE_SIZE + 5]


class Site:
    """A server in memory, a cache, and whoever fetches."""

    def __init__(self, nursery: trio.Nursery, folder: Path) -> None:
        self.net = MemoryNet(nursery)
        self.server = FaultyServer({"/f": FILE})
        self.net.add("store", self.server.serve)
        self.client = Client(dial=self.net.dial, deadlines=Deadlines(progress=10))
        self.folder = folder
        self.cache = BlobCache(folder / "cache")
        self.last: Fetching | None = None

    def serve(self, data: bytes, *plan: Fault, after: Fault | None = None) -> None:
        self.server.files = {"/f": data}
        self.server.plan[:] = plan
        self.server.after = after or Proper()

    async def fetch(
        self,
        url: str = "http://store/f",
        *,
        headers: tuple[tuple[str, str], ...] = (),
        digest: Digest | None = None,
        shared: bool = False,
    ) -> bytes:
        """Fetch, and return what was written."""
        where = Url.parse(url)
        private = frozenset(name.lower() for name, _ in headers)
        file = UrlFile.plain(Request("GET", where, headers, private=private), self.client)
        task = FileTask.of(where, headers, shared=shared)
        self.last = Fetching(task, file, self.cache, patience=30)
        await self.last.fetch_to(self.folder / "out", digest)
        return (self.folder / "out").read_bytes()

    @property
    def origin(self) -> int:
        """Bytes that the last fetch had from the origin."""
        assert self.last is not None
        tallies = self.last.ledger.tallies
        return tallies["origin"].size if "origin" in tallies else 0

    @property
    def ranges(self) -> list[str]:
        return [asked.headers.get("range", "") for asked in self.server.asked]


@pytest.fixture
async def site(nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Site]:
    found = Site(nursery, tmp_path)
    with found.client:
        yield found
    found.cache.close()


async def test_a_file_comes_in_ranges_once(site: Site) -> None:
    assert await site.fetch() == FILE
    assert site.origin == len(FILE)
    assert site.ranges[0] == "bytes=0-0"
    assert len(site.ranges) == 4


async def test_every_range_asks_for_the_file_that_was_found(site: Site) -> None:
    await site.fetch()
    asked = [each.headers.get("if-range") for each in site.server.asked]
    assert asked == [None, '"one"', '"one"', '"one"']


async def test_what_is_here_is_not_fetched_again(site: Site) -> None:
    await site.fetch()
    assert await site.fetch() == FILE
    assert site.origin == 0
    assert len(site.ranges) == 5


GOOD: list[tuple[str, bytes, Fault]] = [
    ("nothing in it", b"", Proper()),
    ("one byte", b"x", Proper()),
    ("one piece exactly", FILE[:PIECE_SIZE], Proper()),
    ("a date for a tag", SMALL, Dated()),
    ("neither tag nor date", SMALL, Dated(date="")),
    ("a weak tag", SMALL, Proper(tag='W/"one"')),
    ("no ranges", SMALL, Whole()),
    ("nothing in it and no ranges", b"", Whole()),
    ("no length", SMALL, Streamed(chunk=100_000)),
    ("no length, whole pieces", FILE[: 2 * PIECE_SIZE], Streamed(chunk=100_000)),
    ("no length and no tag", SMALL, Streamed(chunk=100_000, tag="")),
    ("no length and nothing in it", b"", Streamed()),
]


@pytest.mark.parametrize(("name", "data", "after"), GOOD, ids=[row[0] for row in GOOD])
async def test_any_decent_server_will_do(site: Site, name: str, data: bytes, after: Fault) -> None:
    site.serve(data, after=after)
    assert await site.fetch() == data
    assert site.origin == len(data)


async def test_a_date_is_asked_with_where_there_is_no_tag(site: Site) -> None:
    site.serve(FILE, after=Dated())
    await site.fetch()
    assert {each.headers.get("if-range") for each in site.server.asked[1:]} == {Dated().date}


async def test_a_fetch_that_broke_off_goes_on_where_it_was(site: Site) -> None:
    site.serve(FILE, Proper(), Cut(3 * PIECE_SIZE), after=Status(code=403))
    with pytest.raises(Refused):
        await site.fetch()
    had = site.origin
    assert had >= 3 * PIECE_SIZE
    site.serve(FILE)
    assert await site.fetch() == FILE
    assert site.origin == len(FILE) - had


async def test_a_cut_is_survived_within_a_range(site: Site, autojump_clock: MockClock) -> None:
    site.serve(FILE, Proper(), Cut(PIECE_SIZE + 7), Cut(100_000), Stall(5))
    assert await site.fetch() == FILE
    assert site.origin == len(FILE)


async def test_an_origin_that_stays_away_is_one_clear_error(
    site: Site, autojump_clock: MockClock
) -> None:
    site.serve(FILE, Proper(), after=Status())
    with pytest.raises(Unreachable, match="answered 503"):
        await site.fetch()


async def test_a_stream_that_broke_off_is_read_again_and_must_be_the_same(
    site: Site, autojump_clock: MockClock
) -> None:
    site.serve(SMALL, Whole(), Streamed(chunk=PIECE_SIZE, is_ended=False), after=Whole())
    assert await site.fetch() == SMALL


async def test_a_stream_that_ends_with_the_connection_may_have_been_cut(
    site: Site, autojump_clock: MockClock
) -> None:
    site.serve(SMALL, after=UntilClosed(dropped=3))
    with pytest.raises(Unreachable):
        await site.fetch()
    assert not (site.folder / "out").exists()


async def test_a_file_replaced_while_it_is_fetched_is_begun_anew(site: Site) -> None:
    new = Proper(tag='"two"')

    class Replacing(Proper):
        async def answer(self, asked, data, stream):  # type: ignore[no-untyped-def]
            site.server.files = {"/f": OTHER}
            await new.answer(asked, OTHER, stream)

    site.serve(FILE, Proper(), Proper(), Replacing(), after=new)
    assert await site.fetch() == OTHER
    site.serve(OTHER, after=new)
    assert await site.fetch() == OTHER
    assert site.origin == 0


async def test_a_file_replaced_between_two_fetches_is_not_mixed(site: Site) -> None:
    site.serve(FILE, Proper(), Proper(), after=Status(code=403))
    with pytest.raises(Refused):
        await site.fetch()
    site.serve(OTHER, after=Proper(tag='"two"'))
    assert await site.fetch() == OTHER
    assert site.origin == len(OTHER)


async def test_a_shorter_file_is_another_one(site: Site) -> None:
    await site.fetch()
    site.serve(SMALL)
    assert await site.fetch() == SMALL


async def test_a_file_that_changes_all_the_time_is_given_up(site: Site) -> None:
    count = 0

    class Restless(Proper):
        async def answer(self, asked, data, stream):  # type: ignore[no-untyped-def]
            nonlocal count
            count += 1
            await Proper(tag=f'"{count}"').answer(asked, data, stream)

    site.serve(SMALL, after=Restless())
    with pytest.raises(Changed, match="another file by now"):
        await site.fetch()
    assert len(site.ranges) == 2 * (CHANGES + 1)


async def test_a_mismatch_with_the_digest_leaves_nothing(site: Site) -> None:
    (site.folder / "out").write_text("mine")
    with pytest.raises(Corrupt, match="hashes to sha256:"):
        await site.fetch(digest=Digest.of(OTHER, Algorithm.SHA256))
    assert (site.folder / "out").read_text() == "mine"
    assert sorted(each.name for each in site.folder.iterdir()) == ["cache", "out"]
    assert await site.fetch(digest=Digest.of(FILE, Algorithm.SHA256)) == FILE


async def test_what_is_not_there_is_missing(site: Site) -> None:
    with pytest.raises(Missing):
        await site.fetch("http://store/none")


async def test_headers_reach_the_origin_and_no_other_host(site: Site) -> None:
    other = FaultyServer({"/g": SMALL})
    site.net.add("elsewhere", other.serve)
    site.serve(SMALL, after=redirect("http://elsewhere/g"))
    headers = (("X-Secret", "s3cret"), ("Authorization", "Bearer t"))
    assert await site.fetch(headers=headers) == SMALL
    assert all(each.headers["x-secret"] == "s3cret" for each in site.server.asked)
    assert not any({"x-secret", "authorization"} & set(each.headers) for each in other.asked)


async def test_what_credentials_open_is_not_given_to_others(site: Site) -> None:
    headers = (("Authorization", "Bearer t"),)
    await site.fetch(headers=headers)
    assert await site.fetch(headers=headers) == FILE
    assert site.origin == 0
    site.serve(FILE, after=Status(code=401))
    with pytest.raises(Refused):
        await site.fetch()


@pytest.mark.logs("bad chunk dropped")
async def test_a_rotten_piece_is_fetched_again(site: Site) -> None:
    site.serve(SMALL)
    await site.fetch()
    (data,) = (site.folder / "cache" / "blobs").glob("*.data")
    with data.open("r+b") as file:
        file.write(b"rotten")
    assert await site.fetch() == SMALL
    assert site.origin == PIECE_SIZE


async def test_a_map_without_our_digests_is_not_believed(site: Site) -> None:
    """An image may have filled this blob's slots with chunks of its own."""
    site.serve(SMALL)
    await site.fetch()
    (digests,) = (site.folder / "cache" / "blobs").glob("*.digests")
    digests.unlink()
    assert await site.fetch() == SMALL
    assert site.origin == len(SMALL)


async def test_damaged_digests_are_learnt_anew(site: Site) -> None:
    site.serve(SMALL)
    await site.fetch()
    (digests,) = (site.folder / "cache" / "blobs").glob("*.digests")
    with digests.open("r+b") as file:
        file.seek(4096 + 40 + 3)
        file.write(b"\xff\xff")
    assert await site.fetch() == SMALL
    assert site.origin == 5


async def test_a_file_in_the_cache_says_what_it_is(site: Site) -> None:
    site.serve(SMALL)
    await site.fetch("http://user:pass@store/f?token=1")
    (digests,) = (site.folder / "cache" / "blobs").glob("*.digests")
    found = label(digests)
    assert found is not None
    assert (found.name, found.length, found.validator) == ("http://store/f", len(SMALL), '"one"')
    assert b"pass" not in digests.read_bytes()
    assert b"token" not in digests.read_bytes()


async def test_a_cache_without_room_is_one_clear_error(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(CacheUnusable, match="No space left"):
        await site.fetch()
