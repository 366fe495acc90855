"""ChunkSourceConformance: what every chunk source does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio

from chunkstore import Buffer, Chunk, ChunkSource, ChunkstoreError, Codec, Corrupt, Digest
from fixtures.blobs import make_blob

MADE = make_blob([5000, 4096, 1, 70_000, 300_000, 600_000, 8192], codec=Codec.LZ4)
"""The blob that a source under test has."""


async def fetched(
    source: ChunkSource, chunks: Sequence[Chunk], *, refuse: Sequence[int] = ()
) -> tuple[dict[int, bytes], ChunkstoreError | None]:
    """Return what *source* delivered by index, and what it raised."""
    got: dict[int, bytes] = {}

    async def deliver(chunk: Chunk, data: Buffer) -> None:
        await trio.lowlevel.checkpoint()
        assert chunk.index not in got, "delivered twice"
        if chunk.index in refuse:
            raise Corrupt(f"chunk {chunk.index} refused")
        got[chunk.index] = bytes(data)

    try:
        await source.fetch(MADE.blob, chunks, deliver)
    except ChunkstoreError as exc:
        return got, exc
    return got, None


class ChunkSourceConformance:
    """Subclasses give a fixture ``source`` that has ``MADE``."""

    @pytest.mark.parametrize("wanted", [[0], [6], [1, 2, 3], [5, 0, 3], [0, 1, 2, 3, 4, 5, 6], []])
    async def test_what_is_asked_for_is_delivered_once(
        self, source: ChunkSource, wanted: list[int]
    ) -> None:
        got, error = await fetched(source, [MADE.chunks[index] for index in wanted])
        assert error is None
        assert got == {index: MADE.data(index) for index in wanted}

    async def test_what_it_has_not_is_one_plain_error_and_the_rest_is_delivered(
        self, source: ChunkSource
    ) -> None:
        strange = replace(
            MADE.chunks[3], digest=Digest.of(b"?"), stored_offset=1 << 40, stored_size=5000
        )
        got, error = await fetched(source, [MADE.chunks[0], strange, MADE.chunks[6]])
        assert error is not None
        assert got == {index: MADE.data(index) for index in (0, 6)}

    async def test_a_refused_delivery_is_raised_after_the_others(self, source: ChunkSource) -> None:
        got, error = await fetched(source, MADE.chunks, refuse=[1, 4])
        assert isinstance(error, Corrupt)
        assert got == {index: MADE.data(index) for index in (0, 2, 3, 5, 6)}

    async def test_fetches_side_by_side_do_not_mix(self, source: ChunkSource) -> None:
        results: list[dict[int, bytes]] = []

        async def fetch() -> None:
            got, error = await fetched(source, MADE.chunks)
            assert error is None
            results.append(got)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(fetch)
        assert results == [{index: MADE.data(index) for index in range(7)}] * 10

    async def test_a_cancelled_fetch_leaves_the_source_as_good_as_new(
        self, source: ChunkSource
    ) -> None:
        for _ in range(20):
            with trio.CancelScope() as scope:

                async def deliver(
                    _chunk: Chunk, _data: Buffer, scope: trio.CancelScope = scope
                ) -> None:
                    scope.cancel()
                    await trio.lowlevel.checkpoint()

                await source.fetch(MADE.blob, MADE.chunks, deliver)
            assert scope.cancelled_caught
        got, error = await fetched(source, MADE.chunks)
        assert error is None
        assert len(got) == 7

    def test_its_repr_says_what_it_is_made_of(self, source: ChunkSource) -> None:
        assert repr(source).startswith(type(source).__name__ + "(")
