"""Server: uploads out of this host's cache.

A child follows tasks and is told what is here, and what changes; it asks for pieces, which leave in
the order of their priority, one at a time per child and a bounded number of them in all. What is
not here is fetched by nobody but a seed, which has a ``Fetcher`` for that.

Tasks: per child its session's, and those of `child`.
"""

from __future__ import annotations

import trio

from .child import OPEN_REQUESTS, PATIENCE, Child
from .holdings import Holding, Holdings
from .session import Session
from .uploading import SEED_SLOTS, SLOTS, Fetcher, Terms, Uploading

__all__ = [
    "OPEN_REQUESTS",
    "PATIENCE",
    "SEED_SLOTS",
    "SLOTS",
    "Fetcher",
    "Server",
    "Terms",
]


class Server(Uploading):
    """Uploads to any number of children."""

    def __init__(
        self, holdings: Holdings, terms: Terms | None = None, fetcher: Fetcher | None = None
    ) -> None:
        super().__init__(holdings, terms, fetcher)
        self._children: set[Child] = set()
        holdings.opened.append(self._opened)

    async def serve(self, session: Session) -> None:
        """Serve one child until its session ends."""
        child = Child(self, session)
        self._children.add(child)
        self.tally.children += 1
        try:
            async with trio.open_nursery() as nursery:
                child.nursery = nursery
                nursery.start_soon(child.upload)
                nursery.start_soon(child.tell)
                await session.run(child)
                nursery.cancel_scope.cancel()
        finally:
            self.tally.children -= 1
            self._children.discard(child)
            child.close()

    def _opened(self, holding: Holding) -> None:
        for child in self._children:
            child.opened(holding)
