"""Uploading: what all uploads of a host share: the cache, the slots, the rate, the tally."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from chunkstore import Chunk
from chunkstore.cachefile import CacheFile

from .holdings import Holding, Holdings, Upload
from .messages import Description
from .slots import Pace, Slots
from .wire import Request

SLOTS, SEED_SLOTS = 50, 300
"""Uploads at once, of a peer and of a seed."""


class Fetcher(Protocol):
    """Gets the pieces that a seed does not have yet."""

    async def admits(self, task: bytes, description: Description | None) -> bool:
        """Say whether a child may have what is seeded of a task; never raises."""
        ...

    async def open(self, task: bytes, description: Description) -> Holding | None:
        """Return the holding of a task that is new here; None where it cannot be had."""
        ...

    async def fetch(
        self, task: bytes, description: Description | None, request: Request
    ) -> Request:
        """Bring a piece into the cache and return the request, its digest known.

        Raises ChunkstoreError.
        """
        ...


@dataclass(slots=True)
class Tally:
    """What was uploaded so far."""

    pieces: int = 0
    size: int = 0
    """Bytes of pieces as they were sent."""
    absent: int = 0
    busy: int = 0
    failed: int = 0
    complaints: int = 0
    children: int = 0
    """Sessions now."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How much a host uploads."""

    slots: int = SLOTS
    rate: float | None = None
    """Bytes per second."""


class Uploading:
    """One host's."""

    def __init__(
        self, holdings: Holdings, terms: Terms | None = None, fetcher: Fetcher | None = None
    ) -> None:
        terms = terms or Terms()
        self.holdings = holdings
        self.fetcher = fetcher
        self.slots = Slots(terms.slots)
        self.pace = Pace(terms.rate)
        self.tally = Tally()
        self.disk = trio.CapacityLimiter(2)
        self.upload: Callable[[CacheFile, Chunk], Upload] = Upload
        """How a chunk is sent."""
