"""FromOrigin: the pieces of a file as its origin gives them.

Pieces that can be asked for come in ranges, several side by side. A file that can only be read from
its first byte on is read so once; when that breaks off it is read again from the start, and what
was here before must be the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from chunkstore import Algorithm, Buffer, Changed, Chunk, Corrupt, Digest, Refused, Unreachable
from chunkstore.ledger import Ledger, Pulse
from chunkstore.originchunks import OriginChunks
from chunkstore.origins.url import State, UrlFile
from chunkstore.retrying import FIRST_PAUSE, LONGEST_PAUSE, Retrying

from .store import FileStore
from .task import LARGE_PIECE_SIZE

SPAN_SIZE = 8 << 20
"""Bytes of one range: a request and a redirect or two are then cheap at 100 ms."""

BATCH = 512
"""Pieces that are asked for at a time."""

_UNKNOWN = Digest(Algorithm.BLAKE3, bytes(32))
"""Stands for the digest of a piece that is about to be learnt."""

Kept = Callable[[int], Awaitable[None]]
"""Told of a piece that was kept."""


async def kept(_piece: int) -> None:
    """Have nothing to do with a piece that was kept."""


class FromOrigin:
    """Reads pieces of *store*'s file where it comes from, and keeps them there."""

    def __init__(self, store: FileStore, file: UrlFile, patience: float, ledger: Ledger) -> None:
        """Give up when nothing has come for *patience* seconds; *file* is in the store's state."""
        self.store = store
        self._file = file
        self._patience = patience
        self._ledger = ledger
        source = Retrying(file, deadline=patience)
        self._chunks = OriginChunks(source, span_size=SPAN_SIZE, ledger=ledger, pulse=Pulse())

    async def bring(self, pieces: Sequence[int], told: Kept = kept) -> None:
        """Read *pieces*, telling of each that is kept.

        Raises Changed when the origin has another file by now, CacheUnusable when there is no room,
        else what kept them from coming.
        """
        version = self.store.version
        blob = version.blob()

        async def deliver(chunk: Chunk, data: Buffer) -> None:
            await self._keep(chunk.index, data)
            await told(chunk.index)

        for start in range(0, len(pieces), BATCH):
            batch = pieces[start : start + BATCH]
            wanted = [version.chunk(piece, _UNKNOWN) for piece in batch]
            await self._chunks.fetch(blob, wanted, deliver)

    async def read_through(self, told: Kept = kept) -> None:
        """Read the whole file in order; raises as ``bring`` does."""
        pause, moved = FIRST_PAUSE, trio.current_time()
        while True:
            before = len(self.store.ready)
            try:
                return await self._read_through(told)
            except Refused:
                raise
            except Unreachable as exc:
                if len(self.store.ready) > before:
                    pause, moved = FIRST_PAUSE, trio.current_time()
                wait = exc.retry_after or pause
                if trio.current_time() + wait > moved + self._patience:
                    raise
            await trio.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _read_through(self, told: Kept) -> None:
        store = self.store

        async def take(piece: int, part: Buffer) -> None:
            if len(part) < LARGE_PIECE_SIZE and store.version.length is None:
                store.ended(piece * LARGE_PIECE_SIZE + len(part))
            self._ledger.add("origin", stored_size=len(part))
            if not store.has(piece):
                await self._keep(piece, part)
                await told(piece)
            elif Digest.of(part).raw != store.digests.raw(piece):
                raise Changed(f"{self._file!r}: piece {piece} is not what it was a moment ago")

        length = await self._file.stream(take, LARGE_PIECE_SIZE)
        if store.version.length is None:
            store.ended(length)

    async def _keep(self, piece: int, data: Buffer) -> None:
        known = self.store.digests.raw(piece) is not None
        try:
            await self.store.put(piece, data)
        except Corrupt as exc:
            if not known:
                raise
            # Who told its digest read another file than this one, or lied.
            raise Changed(f"{self._file!r}: {exc}") from exc
        self._ledger.add("origin", chunks=1, size=len(data))


async def probed(file: UrlFile, pauses: Sequence[float]) -> State:
    """Ask *file*'s origin which file it has, again after each of *pauses* if it does not answer."""
    for pause in pauses:
        try:
            return await file.probe()
        except Refused:
            raise
        except Unreachable as exc:
            await trio.sleep(min(exc.retry_after or pause, LONGEST_PAUSE))
    return await file.probe()
