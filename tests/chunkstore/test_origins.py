"""Directory and HTTP origins do what every origin does."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from chunkstore import Corrupt, Malformed, Missing, Refused, SizedOrigin, Unreachable
from chunkstore.http import Client, Deadlines
from chunkstore.origins.directory import DirectoryOrigin
from chunkstore.origins.http import HttpOrigin
from fixtures.faulty import FaultyServer, Proper, Unsized, UntilClosed, Whole
from fixtures.link import parse_rate
from fixtures.memorynet import MemoryNet
from fixtures.rangeserver import RangeServer
from tests.conformance.origin import BIG, FILES, OriginConformance


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "blobs").mkdir()
    for name, data in FILES.items():
        (tmp_path / "blobs" / name).write_bytes(data)
    (tmp_path / "image.json").write_bytes(b"{}")
    return tmp_path


@pytest.fixture
def server(image: Path) -> Iterator[RangeServer]:
    with RangeServer(image) as running:
        yield running


class TestDirectory(OriginConformance):
    @pytest.fixture
    def origin(self, image: Path) -> SizedOrigin:
        return DirectoryOrigin(image)


class TestHttp(OriginConformance):
    @pytest.fixture
    async def origin(self, server: RangeServer) -> AsyncIterator[SizedOrigin]:
        with Client() as client:
            yield HttpOrigin(server.url, client)


class _OverMemory(OriginConformance):
    """The same answers in the ways that servers may frame them."""

    fault: Proper

    @pytest.fixture
    async def origin(self, nursery: trio.Nursery) -> AsyncIterator[SizedOrigin]:
        net = MemoryNet(nursery)
        files = {f"/image/blobs/{name}": data for name, data in FILES.items()}
        net.add("store", FaultyServer(files, after=self.fault).serve)
        with Client(dial=net.dial, connections=2) as client:
            yield HttpOrigin("http://store/image/", client)


class TestHttpInMemory(_OverMemory):
    fault = Proper()


class TestHttpInChunks(_OverMemory):
    fault = Unsized()


class TestHttpInOneByteChunks(_OverMemory):
    fault = Unsized(chunk=4099)


class TestHttpUntilTheConnectionCloses(_OverMemory):
    fault = UntilClosed()


class TestHttpWithoutRanges(_OverMemory):
    fault = Whole()


async def test_small_documents_lie_beside_the_blobs(image: Path, server: RangeServer) -> None:
    with Client() as client:
        for origin in (DirectoryOrigin(image), HttpOrigin(server.url, client)):
            assert await origin.document("image.json", 2) == b"{}"
            with pytest.raises(Corrupt, match=r"image\.json"):
                await origin.document("image.json", 1)
            with pytest.raises(Missing, match=r"image\.boot"):
                await origin.document("image.boot", 10)


async def test_downloads_end_at_the_limit(image: Path, server: RangeServer, tmp_path: Path) -> None:
    with Client() as client:
        for origin in (DirectoryOrigin(image), HttpOrigin(server.url, client)):
            target = tmp_path / "copy"
            with target.open("wb") as out:
                assert await origin.download("blobs/blob-1", out, len(BIG)) == len(BIG)
            assert target.read_bytes() == BIG
            with target.open("wb") as out, pytest.raises(Corrupt, match="blob-1"):
                await origin.download("blobs/blob-1", out, len(BIG) - 1)


async def test_reads_one_after_the_other_share_a_connection(server: RangeServer) -> None:
    with Client() as client:
        origin = HttpOrigin(server.url, client)
        for start in range(20):
            await origin.read("blob-1", start, memoryview(bytearray(9)), lambda _count: None)
        assert client.idle == 1
    assert (server.statistics.connections, server.statistics.requests) == (1, 20)


async def test_a_link_lets_through_what_it_is_wide(image: Path) -> None:
    rate = parse_rate("100mbit")
    assert rate == 12_500_000
    with RangeServer(image, rate=rate) as slow, Client() as client:
        began = trio.current_time()
        into = memoryview(bytearray(len(BIG)))
        await HttpOrigin(slow.url, client).read("blob-1", 0, into, lambda _count: None)
        assert trio.current_time() - began > 0.9 * len(BIG) / rate


async def test_a_directory_is_never_left_by_a_blobs_name(image: Path) -> None:
    with pytest.raises(Malformed, match="no file name"):
        await DirectoryOrigin(image).size("../image.json")


async def test_a_blob_that_is_a_folder_or_shut_is_told_apart(image: Path) -> None:
    (image / "blobs" / "folder").mkdir()
    origin = DirectoryOrigin(image)
    with pytest.raises((Refused, Unreachable), match=r"folder|directory"):
        await origin.read("folder", 0, memoryview(bytearray(1)), lambda _count: None)


async def test_a_blob_that_is_no_file_is_unreachable(image: Path) -> None:
    os.mkfifo(image / "blobs" / "pipe")
    with pytest.raises(Unreachable, match="seek"):
        await DirectoryOrigin(image).read("pipe", 0, memoryview(bytearray(1)), lambda _count: None)


async def test_more_blobs_than_files_are_kept_open_are_read(image: Path) -> None:
    for number in range(100):
        (image / "blobs" / f"n{number}").write_bytes(b"%03d" % number)
    origin = DirectoryOrigin(image)
    for _again in range(2):
        for number in range(100):
            into = bytearray(3)
            await origin.read(f"n{number}", 0, memoryview(into), lambda _count: None)
            assert into == b"%03d" % number


async def test_nobody_listening_is_unreachable_at_once() -> None:
    with Client(deadlines=Deadlines(connect=5)) as client, pytest.raises(Unreachable, match="ref"):
        await HttpOrigin("http://127.0.0.1:9", client).size("blob-1")
