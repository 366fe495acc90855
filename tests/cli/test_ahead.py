from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from chunkstore import Blob, Chunk
from chunkstore.source import Deliver
from cli.ahead import Together, fetch_ahead
from cli.setup import Prefetch
from fusefs.errors import FusefsError
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


class AllAtOnce:
    """Brings whole blobs, or says that it cannot."""

    async def take_all(
        self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver, patience: float
    ) -> bool:
        return False


class StoreInSwarm:
    """Has a swarm to ask."""

    source = AllAtOnce()


@pytest.mark.parametrize("argument", [b"null", b"[1]", b'{"paths": 5}', b'{"path": []}', b"{"])
async def test_a_request_to_warm_that_makes_no_sense_is_declined_in_a_swarm_too(
    argument: bytes,
) -> None:
    async def ask(_: bytes) -> Mapping[str, object]:
        raise AssertionError

    together = Together(None, StoreInSwarm(), None)  # type: ignore[arg-type]
    with pytest.raises(FusefsError, match="not a request to warm"):
        await together.around(ask)(argument)
