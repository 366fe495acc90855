"""Neighbours: small files that lie side by side in a blob, fetched together when they are read so.

A builder stores files in the order of their paths, so who goes through a directory goes through a
part of a blob: each file would be a request of its own, and wait for it alone. What is followed are
walks, by the chunks' indices. A miss that is near no walk begins one and asks for nothing; the next
one, if it adjoins, or the third that is near, asks for the small chunks that follow it, or that lie
before it where the walk goes back. The window doubles as long as at least a quarter of what was
brought is read, and halves otherwise; where even the smallest is not worth it, the walk passes over
more files than it reads, and must show twice as many misses, or one that adjoins, before it is
given another. Large chunks are left out: they belong to files that `prefetch` looks after.

That is for who reads on and on. What lies in one directory and is read in no order `folders` knows
of, and once it does, a walk goes on by what adjoins it alone.

Tasks: of the event loop; no method awaits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from chunkstore import Blob, Chunk, Extent
from rafs import RafsError

from .folders import SMALL_FILE, Folders
from .tree import Chunks, Tree

SMALL = 64 << 10
"""Bytes of a chunk up to which it is a small file's, most likely."""

NEAR = 16
"""Chunks by which a miss may be off: programs pass over files."""

FIRST_WINDOW, LAST_WINDOW = 64 << 10, 2 << 20
"""Stored bytes that are asked for at once. The first costs about as much as a request of its own;
more than the last does not make the requests cheaper."""

NEEDED, MOST_NEEDED = 3, 96
"""Misses that a walk shows before anything is brought along, at first and when that was in vain."""

WALKS = 16
"""Walks that are remembered; the one that went on longest ago is forgotten first."""

Want = Callable[[Blob, Sequence[Chunk]], int]
"""Has chunks fetched behind the readers; returns how many there was room for."""


@dataclass(slots=True)
class _Walk:
    start: int
    """The chunks in ``[start, stop)`` were read, brought, or passed over."""
    stop: int
    misses: int = 1
    """Since it began, or since it was found that bringing is not worth it."""
    needed: int = NEEDED
    window: int = 0
    brought: int = 0
    """Chunks brought by the last window."""
    used: int = 0
    """How many of them were read."""

    def takes(self, index: int) -> bool:
        ahead = self.stop - 2 * NEAR <= index < self.stop + NEAR
        return ahead or self.start - NEAR <= index < self.start

    def use(self) -> None:
        self.used += 1

    def adjoins(self, index: int) -> bool:
        return index in (self.stop, self.start - 1)

    def miss(self, index: int) -> int:
        """Take note of a miss; return how many bytes to bring along."""
        self.misses += 1
        if self.misses < (2 if self.adjoins(index) else self.needed):
            return 0
        if not self.window:
            self.window = FIRST_WINDOW
        elif 4 * self.used >= self.brought:
            self.window = min(2 * self.window, LAST_WINDOW)
            self.needed = NEEDED
        elif self.window > FIRST_WINDOW:
            self.window = max(self.window // 2, FIRST_WINDOW)
        else:
            self.window, self.misses = 0, 0
            self.needed = min(2 * self.needed, MOST_NEEDED)
        self.brought = self.used = 0
        return self.window


class Neighbours:
    """The walks through the blobs of one image."""

    def __init__(self, tree: Tree, want: Want) -> None:
        self._tree = tree
        self._want = want
        self._walks: dict[str, list[_Walk]] = {}
        """By blob, the latest first."""
        self._chunks: dict[str, Chunks | None] = {}
        self._folders = Folders(tree)
        self.brought: dict[tuple[str, int], _Walk | Folders] = {}
        """What was brought and not read yet, as far as it is remembered: blob and index, and for
        whose sake."""

    def read(self, extents: Sequence[Extent]) -> None:
        """Take note of what is read, wherever it comes from."""
        for extent in extents:
            if extent.blob is None or extent.chunk is None:
                continue
            bringer = self.brought.pop((extent.blob.id, extent.chunk.index), None)
            if bringer is not None:
                bringer.use()

    def missed(self, extents: Sequence[Extent]) -> None:
        """Take note of a read of what is not here, and have fetched what will be read next."""
        if len(extents) > 2:  # no small file
            return
        for extent in extents:
            blob, chunk = extent.blob, extent.chunk
            if blob is None or chunk is None:
                continue
            walked = chunk.size <= SMALL and self._follow(blob, chunk)
            chunks = self._known(blob)
            if not walked and chunk.size < SMALL_FILE and chunks is not None:
                with suppress(RafsError):  # whoever reads the damaged place will hear of it
                    along = self._folders.missed(blob, chunk, chunks)
                    self._bring(blob, self._folders, along)

    def _follow(self, blob: Blob, chunk: Chunk) -> bool:
        """Take note of a small file; say whether any was brought."""
        walks = self._walks.setdefault(blob.id, [])
        index = chunk.index
        walk = next((walk for walk in walks if walk.takes(index)), None)
        if self._folders.knows(blob, chunk) and not (walk and walk.adjoins(index)):
            return False
        if walk is None:
            walks.insert(0, _Walk(index, index + 1))
            del walks[WALKS:]
            return False
        walks.remove(walk)
        walks.insert(0, walk)
        back = index < walk.start
        size = walk.miss(index)
        walk.start, walk.stop = min(walk.start, index), max(walk.stop, index + 1)
        if not size:
            return False
        taken = self._bring(blob, walk, self._along(blob, index, size, -1 if back else 1))
        if taken:
            walk.brought = len(taken)
            walk.start = min(walk.start, taken[0].index)
            walk.stop = max(walk.stop, taken[-1].index + 1)
        return bool(taken)

    def _bring(
        self, blob: Blob, bringer: _Walk | Folders, along: Sequence[Chunk]
    ) -> Sequence[Chunk]:
        """Have *along* fetched; return as much of it as there was room for."""
        if len(self.brought) > 1 << 16:
            self.brought.clear()
        taken = along[: self._want(blob, along)] if along else along
        self.brought.update(((blob.id, chunk.index), bringer) for chunk in taken)
        return taken

    def _along(self, blob: Blob, index: int, size: int, step: int) -> list[Chunk]:
        """Return the small chunks next to *index*, of *size* stored bytes, in their order."""
        found = []
        try:
            for chunk in self._from(blob, index, step):
                if chunk.size <= SMALL:
                    found.append(chunk)
                    size -= chunk.stored_size
                    if size <= 0:
                        break
        except RafsError:
            pass  # whoever reads the damaged place will hear of it
        return sorted(found, key=lambda chunk: chunk.index)

    def _from(self, blob: Blob, index: int, step: int) -> Iterator[Chunk]:
        """Yield the chunks behind or before *index*, as far as this image knows them."""
        chunks = self._known(blob)
        if chunks is None:
            return
        for _ in range(LAST_WINDOW // 4096):
            index += step
            if not 0 <= index < blob.chunk_count:
                return
            chunk = chunks.get(index)
            if chunk is not None:
                yield chunk

    def _known(self, blob: Blob) -> Chunks | None:
        if blob.id not in self._chunks:
            self._chunks[blob.id] = self._tree.by_index(blob)
        return self._chunks[blob.id]
