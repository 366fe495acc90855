from __future__ import annotations

from collections.abc import Sequence

import pytest

from chunkstore import Blob, Chunk
from cli.ahead import fetch_ahead
from cli.setup import Prefetch
from rafs import BadImage


class NonsenseMetadata:
    """Lists a file that it does not have."""

    prefetch = (7,)

    def attributes(self, nid: int) -> tuple[int, ...]:
        raise BadImage(f"inode {nid} at byte 4096: outside")


class NoStore:
    """Takes nothing."""

    source = None

    def want(self, blob: Blob, chunks: Sequence[Chunk]) -> int:
        raise AssertionError


@pytest.mark.logs("no more is fetched ahead: inode 7")
async def test_metadata_that_makes_no_sense_ends_what_is_fetched_ahead_and_nothing_else() -> None:
    await fetch_ahead(NonsenseMetadata(), NoStore(), Prefetch.LIST)  # type: ignore[arg-type]
