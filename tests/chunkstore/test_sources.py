"""Chunk sources and origins of the product, each held to what all of them promise."""

from __future__ import annotations

import pytest

from chunkstore import ChunkSource, Origin, SizedOrigin, Unreachable
from chunkstore.ledger import Ledger
from chunkstore.memory import MemoryChunks, MemoryOrigin
from chunkstore.originchunks import OriginChunks
from chunkstore.retrying import Retrying
from chunkstore.stack import Counted, FirstOf, Limited, Verified
from fixtures.sources import CuttingOrigin, FailingSource
from tests.conformance.chunksource import MADE, ChunkSourceConformance
from tests.conformance.origin import FILES, OriginConformance


def memory() -> MemoryChunks:
    return MemoryChunks({chunk.digest: MADE.data(chunk.index) for chunk in MADE.chunks})


def origin() -> MemoryOrigin:
    return MemoryOrigin({MADE.blob.id: MADE.stored}, step=10_000)


class TestMemoryChunks(ChunkSourceConformance):
    @pytest.fixture
    def source(self) -> ChunkSource:
        return memory()


class TestOriginChunks(ChunkSourceConformance):
    @pytest.fixture(params=[4 << 20, 100_000, 1])
    def source(self, request: pytest.FixtureRequest) -> ChunkSource:
        return OriginChunks(origin(), span_size=request.param)


class TestVerified(ChunkSourceConformance):
    @pytest.fixture
    def source(self) -> ChunkSource:
        return Verified(memory())


class TestFirstOf(ChunkSourceConformance):
    @pytest.fixture
    def source(self) -> ChunkSource:
        return FirstOf(FailingSource(Unreachable("off")), Verified(OriginChunks(origin())))


class TestLimited(ChunkSourceConformance):
    @pytest.fixture
    def source(self) -> ChunkSource:
        return Limited(OriginChunks(origin()), 2)


class TestCounted(ChunkSourceConformance):
    @pytest.fixture
    def source(self) -> ChunkSource:
        return Counted(memory(), "peer", Ledger())


class TestMemoryOrigin(OriginConformance):
    @pytest.fixture
    def origin(self) -> SizedOrigin:
        return MemoryOrigin(FILES, step=7000)


class RetryingSized(Retrying):
    """Retrying passes no size on: what asks for it asks once."""

    def __init__(self, origin: Origin, sized: SizedOrigin) -> None:
        super().__init__(origin, deadline=30)
        self._sized = sized

    async def size(self, blob_id: str) -> int:
        return await self._sized.size(blob_id)


class TestRetrying(OriginConformance):
    @pytest.fixture
    def origin(self, autojump_clock: object) -> SizedOrigin:
        inner = MemoryOrigin(FILES, step=7000)
        cut = Unreachable("cut")
        return RetryingSized(CuttingOrigin(inner, [(0, cut)]), inner)
