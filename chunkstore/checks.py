"""Checks: opens the shelves of an image of whole files, and checks each file when it is all here.

Tasks: ``run`` checks, one file at a time, in a thread; shelves are opened, and say that they are
full, in any thread, so that is passed on to the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from .blobcache import BlobCache
from .chunk import Blob, Chunk
from .digest import Buffer, Digest
from .errors import Corrupt
from .provisional import AtOnce, Provisional
from .shelf import BlobShelf
from .whole import Vouched, Whole, placeholder

logger = logging.getLogger(__name__)

Wrong = Callable[[Whole], Awaitable[None]]
"""Told of a file whose bytes, as far as they were read, were wrong."""


class Checks:
    """The files of one image; made in the event loop."""

    def __init__(self, cache: BlobCache, wholes: Mapping[str, Sequence[Whole]]) -> None:
        """Know the files of each blob, by its id; raises OSError."""
        self._vouched = Vouched(cache.root)
        self._wholes = wholes
        self._single = {
            placeholder(whole.checksum, 0): whole
            for of in wholes.values()
            for whole in of
            if whole.count == 1
        }
        self._shelves: list[Provisional] = []
        self._token = trio.lowlevel.current_trio_token()
        self._full = trio.Event()

    def __call__(self, cache: BlobCache, blob: Blob, owner: Digest) -> BlobShelf:
        """Open a blob's shelf; raises OSError."""
        wholes = self._wholes[blob.id]
        if all(whole.count == 1 for whole in wholes):
            return AtOnce(cache, blob, owner, wholes)
        (whole,) = wholes
        shelf = Provisional(cache, blob, owner, whole, self._vouched, self._wake)
        self._shelves.append(shelf)
        return shelf

    def check(self, chunk: Chunk, data: Buffer) -> None:
        """Raise Corrupt where *data* is known to be wrong."""
        whole = self._single.get(chunk.digest)
        if len(data) != chunk.size or (whole is not None and not whole.checksum.matches(data)):
            raise Corrupt(f"chunk {chunk.index}: not what the hub says it is")

    @property
    def shelves(self) -> Sequence[Provisional]:
        """The files that are open and are checked as a whole."""
        return list(self._shelves)

    def find(self, blob_id: str) -> Provisional | None:
        """Return where a larger file is kept, by its blob's id, if that is open."""
        return next((shelf for shelf in self._shelves if shelf.blob.id == blob_id), None)

    @property
    def unverified(self) -> list[str]:
        """The files of which bytes are here that nobody has checked."""
        return sorted(shelf.whole.name for shelf in self._shelves if shelf.is_doubtful)

    @property
    def nearly(self) -> Mapping[str, Sequence[int]]:
        """The chunks that are missing of files of which half is here, by blob."""
        found = {shelf.whole.blob_id: (shelf.whole.count, shelf.missing) for shelf in self._shelves}
        return {
            blob_id: missing
            for blob_id, (count, missing) in found.items()
            if 0 < len(missing) <= count // 2
        }

    @property
    def failures(self) -> list[str]:
        """Why files were given up."""
        return [shelf.failure for shelf in self._shelves if shelf.failure is not None]

    async def run(self, wrong: Wrong) -> None:
        """Check files as they become full, for ever; tell *wrong* of those that are not right."""
        limiter = trio.CapacityLimiter(1)
        while True:
            await self._full.wait()
            self._full = trio.Event()
            for shelf in list(self._shelves):
                try:
                    right = await trio.to_thread.run_sync(shelf.settle, limiter=limiter)
                except OSError as exc:  # checked again when something more comes, or by who mounts
                    logger.warning(
                        "not kept as checked file=%s reason=%s", shelf.whole.name, exc.strerror
                    )
                    continue
                if not right:
                    logger.warning("file dropped, not what the hub says file=%s", shelf.whole.name)
                    await wrong(shelf.whole)

    def _wake(self) -> None:
        self._token.run_sync_soon(self._rouse)

    def _rouse(self) -> None:
        self._full.set()
