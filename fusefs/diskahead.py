"""Disk ahead: what a sequential reader will want of the cache is read from the disk before it asks.

The kernel has one or two requests of a megabyte under way for a reader. While those are answered
the disk would have nothing to do; so the pieces that follow are read meanwhile, past the page
cache, into memory that is kept for that. What was read so is what was asked for: a chunk's bytes
never change. A file whose pages are pushed is left out: what follows would be read twice.

Tasks: ``run`` owns one per piece, and lets go of pieces that nobody came for.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from chunkstore import Buffer, ChunkstoreError
from rafs import RafsError

from .vfs import Vfs

LEAST = 512 << 10
"""Bytes of a request by which the kernel shows that it reads ahead itself."""

REQUESTS = 8
"""Requests ahead of a reader."""

PIECE = 2 << 20
"""Bytes that are read at once, for several requests."""

MOST = 32
"""Requests ahead of all readers; many readers keep the disk busy by themselves."""

READERS = 64
"""Files whose last request is remembered."""

KEPT = 1.0
"""Seconds for which a piece waits for its reader."""

QUICK = KEPT / (2 * REQUESTS)
"""Seconds that a reader may take from one request to the next: a slower one has no use for pieces,
and would not come for the last of them, which ends several requests later than the others."""

_Place = tuple[int, int]
"""A file's node, and where a request of it begins."""


class _Piece:
    """Bytes that are being read, or have been."""

    def __init__(self, node: int, start: int, stop: int) -> None:
        self.node = node
        self.start = start
        self.stop = stop
        self.left = stop - start
        """Bytes that no request has got yet."""
        self.data: Buffer | None = None
        self.done = trio.Event()
        self.wanted = True
        self.since = math.inf
        """When it was there."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What a request gets of a piece, or will get."""

    piece: _Piece
    start: int
    stop: int

    @property
    def data(self) -> memoryview | None:
        """Its bytes, None where they are not here."""
        whole, start = self.piece.data, self.piece.start
        return None if whole is None else memoryview(whole)[self.start - start : self.stop - start]


@dataclass(frozen=True, slots=True)
class _Next:
    """Where a file's next request would begin."""

    start: int
    since: float
    """When the last one came, or was answered."""


class DiskAhead:
    """The sequential readers of one session's files, and what lies ready for them."""

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs
        self._parts: dict[_Place, _Part] = {}
        """By the place of the request that will come for them."""
        self._asked: dict[_Place, int] = {}
        """Where ends what is being read for requests that found no piece."""
        self._next: OrderedDict[int, _Next] = OrderedDict()
        """Of files whose last request was for what is here, by node."""
        self._begun = trio.Event()
        self._nursery: trio.Nursery | None = None
        self.served = 0
        """Requests that found their bytes read, or being read."""
        self.wasted = 0
        """Pieces of which some was read for nobody."""

    async def run(self) -> None:
        """Read ahead until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                while True:
                    await self._begun.wait()
                    await trio.sleep(KEPT)
                    self._let_go(trio.current_time() - KEPT)
                    if not self._parts:
                        self._begun = trio.Event()
        finally:
            self._nursery = None
            self._let_go(math.inf)

    def expects(self, node: int, start: int) -> bool:
        """Say whether something lies ready for a request: no need to look elsewhere."""
        return (node, start) in self._parts

    async def read(self, node: int, start: int, size: int, *, alone: bool = False) -> Buffer:
        """Return what ``Vfs.read`` does, and have the disk read on for who reads on.

        Read *alone*, nothing is read on.
        """
        end = self._vfs.attributes(node)[5]
        stop = min(start + size, end)
        parts = self._take(node, start, stop)
        before = self._next.get(node)
        follows = not alone and (size >= LEAST or bool(parts))
        if follows and self._is_in_order(before, start, found=bool(parts)):
            self._read_on(node, stop, size, end)
        data = await (self._joined(parts) if parts else self._read(node, start, stop))
        if data is None:
            self._next.pop(node, None)
            return await self._vfs.read(node, start, size)
        self.served += bool(parts)
        if follows:
            self._answered(node, start, stop, before)
        return data

    def _take(self, node: int, start: int, stop: int) -> list[_Part]:
        """Return the pieces that hold ``[start, stop)``, the last of them begun now if need be."""
        parts: list[_Part] = []
        while start < stop and (part := self._parts.pop((node, start), None)) is not None:
            end = min(part.stop, stop)
            if end < part.stop:
                self._parts[node, end] = _Part(part.piece, end, part.stop)
            if parts and parts[-1].piece is part.piece:
                start = parts.pop().start
            parts.append(_Part(part.piece, start, end))
            start = end
        if parts and start < stop:
            parts.append(_Part(self._begin(node, start, stop), start, stop))
        return parts

    async def _joined(self, parts: Sequence[_Part]) -> Buffer | None:
        """Return the bytes of *parts*, copied unless they are one; None if some is not here.

        Requests mostly come as they were foreseen; when a reader begins they still grow.
        """
        for part in parts:
            await part.piece.done.wait()
        views = [view for part in parts if (view := part.data) is not None]
        whole = None
        if len(views) == len(parts):
            whole = views[0] if len(views) == 1 else b"".join(views)
        for part in parts:
            part.piece.left -= part.stop - part.start
            if not part.piece.left:
                self._give_back(part.piece)
        return whole

    async def _read(self, node: int, start: int, stop: int) -> Buffer | None:
        if start >= stop:
            return None
        self._asked[node, start] = stop
        try:
            data = await self._vfs.from_disk(node, start, stop - start)
        finally:
            self._asked.pop((node, start), None)
        if data is not None:
            self._vfs.lend(node, data)
        return data

    def _is_in_order(self, before: _Next | None, start: int, *, found: bool) -> bool:
        if before is None or trio.current_time() - before.since > QUICK:
            return False
        return found or before.start == start

    def _read_on(self, node: int, stop: int, size: int, end: int) -> None:
        """Begin to read what follows a request of *size* bytes up to *stop*, in a file up to *end*.

        Pieces end where requests of that size will end, and hold several of them.
        """
        place = stop
        if stop < self._next[node].start <= stop + REQUESTS * size:
            place = self._next[node].start  # two requests came in the wrong order
        self._expect(node, place)
        limit = min(stop + REQUESTS * size, end) if size >= LEAST else 0
        several = max(PIECE // size, 1) if size else 0
        while place < limit:
            part = self._parts.get((node, place))
            known = part.stop if part is not None else self._asked.get((node, place))
            if known is None:
                if self._nursery is None or len(self._parts) >= MOST:
                    return
                known = min(stop + ((place - stop) // size + several) * size, end)
                piece = self._begin(node, place, known)
                for start in range(place, known, size):
                    self._parts[node, start] = _Part(piece, start, min(start + size, known))
                self._begun.set()
            place = known

    def _begin(self, node: int, start: int, stop: int) -> _Piece:
        piece = _Piece(node, start, stop)
        if self._nursery is None:
            piece.done.set()
        else:
            self._nursery.start_soon(self._fill, piece)
        return piece

    def _expect(self, node: int, start: int) -> None:
        """Take note of where the next request will begin."""
        self._next[node] = _Next(start, trio.current_time())
        self._next.move_to_end(node)
        if len(self._next) > READERS:
            self._next.popitem(last=False)

    def _answered(self, node: int, start: int, stop: int, before: _Next | None) -> None:
        """Expect what follows; where requests are under way together, what follows the last."""
        after = self._next.get(node)
        last = after is None or after is before or after.start == start
        self._expect(node, stop if last or after is None else after.start)

    async def _fill(self, piece: _Piece) -> None:
        try:
            with suppress(RafsError, ChunkstoreError, OSError):  # whoever reads there is told
                size = piece.stop - piece.start
                data = await self._vfs.from_disk(piece.node, piece.start, size)
                piece.data = data if data is not None and len(data) == size else None
        finally:
            piece.since = trio.current_time()
            piece.done.set()
            if piece.data is None:
                self._parts = {
                    key: part for key, part in self._parts.items() if part.piece is not piece
                }
            elif not piece.wanted:
                self._waste(piece)

    def _let_go(self, before: float) -> None:
        for key, part in list(self._parts.items()):
            piece = part.piece
            if piece.since <= before:
                del self._parts[key]
                if piece.wanted and piece.done.is_set():
                    self._waste(piece)
                piece.wanted = False

    def _waste(self, piece: _Piece) -> None:
        self.wasted += 1
        self._give_back(piece)

    def _give_back(self, piece: _Piece) -> None:
        data, piece.data = piece.data, None
        if data is not None:
            with suppress(RafsError):  # the image has gone
                self._vfs.lend(piece.node, data)
