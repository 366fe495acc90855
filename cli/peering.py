"""Peering: a mount's part in a swarm. Loaded by name, and only by mounts that take part."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from chunkstore import ChunkSource
from chunkstore.blobcache import BlobCache
from chunkstore.checks import Checks
from chunkstore.imagestore import ImageStore
from chunkstore.ledger import Ledger
from p2p.files.wholes import Wholes, WholeSource
from p2p.source import PeerSource
from p2p.swarm import Swarm

from .setup import Membership
from .stack import Whereabouts
from .swarm import SWARM_WORKERS, in_swarm, joining, seedable


@asynccontextmanager
async def taking_part(membership: Membership, cache: BlobCache) -> AsyncIterator[Peering]:
    """Take part in the swarm that *membership* names while the context lasts."""
    async with in_swarm(membership, cache) as swarm:
        assert swarm is not None
        yield Peering(swarm, cache)


class Peering:
    """See ``stack.Peers``."""

    def __init__(self, swarm: Swarm, cache: BlobCache) -> None:
        self._swarm = swarm
        self._cache = cache
        self._source: PeerSource | None = None
        self._wholes: Wholes | None = None

    def before(self, origin: ChunkSource, where: Whereabouts, ledger: Ledger) -> ChunkSource:
        """Return what asks peers for an image's chunks, and *origin* for what none has."""
        if where.checks is not None:
            self._wholes = Wholes(self._swarm, self._cache, where.checks.find)
            self._source = WholeSource(self._wholes, origin, ledger)
            return self._source
        found = seedable(where.image, plain_http=where.plain_http)
        self._source = PeerSource(joining(self._swarm, found, where.proof), origin, ledger)
        return self._source

    def serve(self, store: ImageStore) -> None:
        """Have peers asked side by side for what the readers of *store* wait for."""
        if self._source is not None:
            self._source.watch(store.demand)
            store.workers = SWARM_WORKERS

    async def offer(self, checks: Checks) -> None:
        """Have peers know of the files of *checks* that were checked, now and later."""
        if self._wholes is not None:
            for shelf in checks.shelves:
                await self._wholes.join(shelf.blob)

    def statistics(self) -> Mapping[str, object]:
        """Return what ``status`` tells of the swarm."""
        return self._swarm.statistics()
