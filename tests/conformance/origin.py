"""OriginConformance: what every origin does."""

from __future__ import annotations

import pytest
import trio

from chunkstore import Corrupt, Missing, SizedOrigin

FILES = {"blob-1": bytes(i * 7 % 251 for i in range(300_000)), "blob-2": b"x", "empty": b""}
"""What an origin under test holds."""

BIG = FILES["blob-1"]


class OriginConformance:
    """Subclasses give a fixture ``origin`` that holds ``FILES``."""

    @pytest.mark.parametrize(
        ("start", "stop"), [(0, 300_000), (0, 1), (299_999, 300_000), (70_000, 200_000), (5, 5)]
    )
    async def test_a_range_is_what_the_file_holds_there(
        self, origin: SizedOrigin, start: int, stop: int
    ) -> None:
        into = bytearray(stop - start)
        await origin.read("blob-1", start, memoryview(into), lambda _count: None)
        assert into == BIG[start:stop]

    async def test_bytes_outside_the_range_are_left_alone(self, origin: SizedOrigin) -> None:
        into = bytearray(b"-" * 30)
        await origin.read("blob-1", 100, memoryview(into)[10:20], lambda _count: None)
        assert into == b"-" * 10 + BIG[100:110] + b"-" * 10

    async def test_what_arrived_grows_up_to_all_of_it_and_is_in_place(
        self, origin: SizedOrigin
    ) -> None:
        into = bytearray(200_000)
        counts = []

        def arrived(count: int) -> None:
            assert into[:count] == BIG[1000 : 1000 + count]
            counts.append(count)

        await origin.read("blob-1", 1000, memoryview(into), arrived)
        assert counts == sorted(set(counts))
        assert counts[-1] == 200_000

    @pytest.mark.parametrize("name", FILES)
    async def test_size_is_the_whole_files(self, origin: SizedOrigin, name: str) -> None:
        assert await origin.size(name) == len(FILES[name])

    async def test_a_blob_that_is_not_there_is_missing(self, origin: SizedOrigin) -> None:
        with pytest.raises(Missing, match="nowhere"):
            await origin.read("nowhere", 0, memoryview(bytearray(10)), lambda _count: None)
        with pytest.raises(Missing, match="nowhere"):
            await origin.size("nowhere")

    @pytest.mark.parametrize(("start", "stop"), [(299_990, 300_010), (300_000, 300_001)])
    async def test_a_range_beyond_the_end_is_corrupt_and_names_the_blob(
        self, origin: SizedOrigin, start: int, stop: int
    ) -> None:
        into = memoryview(bytearray(stop - start))
        with pytest.raises(Corrupt, match="blob-1"):
            await origin.read("blob-1", start, into, lambda _count: None)

    async def test_many_reads_at_once_do_not_mix(self, origin: SizedOrigin) -> None:
        buffers = [bytearray(10_000) for _ in range(30)]
        async with trio.open_nursery() as nursery:
            for at, into in enumerate(buffers):
                view = memoryview(into)
                nursery.start_soon(origin.read, "blob-1", at * 9000, view, lambda _count: None)
        assert buffers == [BIG[at * 9000 : at * 9000 + 10_000] for at in range(30)]

    async def test_a_cancelled_read_leaves_the_origin_as_good_as_new(
        self, origin: SizedOrigin
    ) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await origin.read("blob-1", 0, memoryview(bytearray(10)), lambda _count: None)
        into = bytearray(10)
        await origin.read("blob-1", 50, memoryview(into), lambda _count: None)
        assert into == BIG[50:60]
