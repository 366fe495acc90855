"""Where chunks and stored bytes come from: the Protocols that everything is stacked from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from .chunk import Blob, Chunk, Extent
from .digest import Buffer

Deliver = Callable[[Chunk, Buffer], Awaitable[None]]
"""Takes one chunk's decoded bytes; the buffer is the source's again when it returns."""

Arrived = Callable[[int], None]
"""Told how many bytes, from the first on, are in place now; never awaits, grows call by call."""


class ChunkSource(Protocol):
    """Where decoded chunks can be had: a peer, an origin, memory, or several behind one another."""

    async def fetch(self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver) -> None:
        """Hand each of *chunks* to *deliver*, each at most once, in any order.

        Raises one ChunkstoreError when some could not be had; what was delivered by then counts,
        and the caller knows what is missing. A source may deliver unverified bytes: only what
        stands behind ``Verified`` is checked.
        """
        ...


class Origin(Protocol):
    """Where a blob's stored bytes can always be had, by range."""

    async def read(self, blob_id: str, start: int, into: memoryview, arrived: Arrived) -> None:
        """Fill *into* with the stored bytes from *start* on, calling *arrived* as they come.

        One attempt: raises Missing, Refused or Unreachable, and what *arrived* announced by then
        is in place. The caller keeps *into* until this returns.
        """
        ...


class SizedOrigin(Origin, Protocol):
    """An origin that can say how long a blob's file is, which its tail is found by."""

    async def size(self, blob_id: str) -> int:
        """Return the bytes of the whole stored file; raises as ``read`` does."""
        ...


class ExtentReader(Protocol):
    """What a filesystem reads from: decoded, verified bytes by extent."""

    def look(self, extents: Sequence[Extent]) -> Buffer | None:
        """Return the bytes of *extents* one after the other if all are here, else None.

        Never awaits. The answer may be a view of the cache: it stays right until the calling task
        next awaits, and is given to the kernel before that.
        """
        ...

    async def read(self, extents: Sequence[Extent]) -> Buffer:
        """Return the bytes of *extents*, fetching what is missing; the answer is as ``look``'s.

        Raises ChunkstoreError when every source failed, or none made progress in time.
        """
        ...
