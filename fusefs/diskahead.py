"""Disk ahead: what a sequential reader will want of the cache is read from the disk before it asks.

The kernel has one or two requests of a megabyte under way for a reader. While those are answered
the disk would have nothing to do; so the pieces that follow are read meanwhile, past the page
cache, into memory that is kept for that. What was read so is what was asked for: a chunk's bytes
never change.

Tasks: ``run`` owns one per piece, and lets go of pieces that nobody came for.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from contextlib import suppress

import trio

from chunkstore import Buffer, ChunkstoreError
from rafs import RafsError

from .vfs import Vfs

LEAST = 512 << 10
"""Bytes of a request by which the kernel shows that it reads ahead itself."""

PIECES = 4
"""Requests ahead of a reader."""

MOST = 12
"""Pieces ahead of all readers; many readers keep the disk busy by themselves."""

READERS = 64
"""Files whose last request is remembered."""

KEPT = 1.0
"""Seconds for which a piece waits for its reader."""


class _Piece:
    """Bytes that are being read, or have been."""

    def __init__(self, node: int) -> None:
        self.node = node
        self.data: Buffer | None = None
        self.done = trio.Event()
        self.wanted = True
        self.since = math.inf
        """When it was there."""


class DiskAhead:
    """The sequential readers of one session's files, and what lies ready for them."""

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs
        self._pieces: OrderedDict[tuple[int, int, int], _Piece] = OrderedDict()
        """By node, start and size."""
        self._next: OrderedDict[int, int] = OrderedDict()
        """Where the next request of a file would begin that is here, by node."""
        self._begun = trio.Event()
        self._nursery: trio.Nursery | None = None
        self.served = 0
        """Requests that found their bytes read, or being read."""

    async def run(self) -> None:
        """Read ahead until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                while True:
                    await self._begun.wait()
                    await trio.sleep(KEPT)
                    self._let_go(trio.current_time() - KEPT)
                    if not self._pieces:
                        self._begun = trio.Event()
        finally:
            self._nursery = None
            self._let_go(math.inf)

    async def read(self, node: int, start: int, size: int) -> Buffer:
        """Return what ``Vfs.read`` does, and have the disk read on for who reads on."""
        if size < LEAST:
            return await self._vfs.read(node, start, size)
        piece = self._pieces.pop((node, start, size), None)
        if piece is not None or self._next.get(node) == start:
            self._follow(node, start + size)
            self._read_on(node, start + size, size)
        if piece is not None:
            await piece.done.wait()
            data = piece.data
            self.served += data is not None
        else:
            data = await self._vfs.from_disk(node, start, size)
        if data is None:
            self._next.pop(node, None)
            return await self._vfs.read(node, start, size)
        self._follow(node, start + size)
        self._vfs.lend(node, data)
        return data

    def _follow(self, node: int, stop: int) -> None:
        """Expect a request for what comes after *stop*."""
        self._next[node] = stop
        self._next.move_to_end(node)
        if len(self._next) > READERS:
            self._next.popitem(last=False)

    def _read_on(self, node: int, start: int, size: int) -> None:
        """Begin to read the pieces from *start* on that are not under way."""
        for place in range(start, start + PIECES * size, size):
            if self._nursery is None or len(self._pieces) >= MOST:
                return
            key = node, place, size
            if key not in self._pieces:
                self._pieces[key] = piece = _Piece(node)
                self._nursery.start_soon(self._fill, key, piece)
                self._begun.set()

    async def _fill(self, key: tuple[int, int, int], piece: _Piece) -> None:
        try:
            with suppress(RafsError, ChunkstoreError, OSError):  # whoever reads there is told
                piece.data = await self._vfs.from_disk(*key)
        finally:
            piece.since = trio.current_time()
            piece.done.set()
            if not piece.wanted:
                self._give_back(piece)

    def _let_go(self, before: float) -> None:
        for key, piece in list(self._pieces.items()):
            if piece.since <= before:
                del self._pieces[key]
                piece.wanted = False
                if piece.done.is_set():
                    self._give_back(piece)

    def _give_back(self, piece: _Piece) -> None:
        data, piece.data = piece.data, None
        if data is not None:
            with suppress(RafsError):  # the image has gone
                self._vfs.lend(piece.node, data)
