"""Views: what can be answered at once, out of mapped cache files and held chunks.

Tasks: of the event loop. A lease that a view needs is shared at the first look in a turn of the
loop and given back in the next one, when whoever looked has awaited.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import trio

from .cachefile import CacheFile
from .chunk import Blob, Chunk, Extent
from .digest import Buffer
from .held import Held
from .lease import Lease
from .shelf import Shelf
from .wanted import Key, key_of

_ZEROS = memoryview(bytes(1 << 20))


class Views:
    """The extents of one image, as far as they are here."""

    def __init__(self, held: Held) -> None:
        self.shelves: dict[str, Shelf] = {}
        """The open blobs by id."""
        self._held = held
        self._leases: set[Lease] = set()
        """Shared until the event loop's next turn."""

    def gather(
        self, extents: Sequence[Extent], kept: Mapping[Key, Buffer] | None = None
    ) -> Buffer | None:
        """Return the bytes of *extents*, from *kept* where the cache has them not, else None.

        One view where they lie in one piece, a copy where they do not.
        """
        parts: list[Buffer] = []
        file: CacheFile | None = None
        start = stop = 0
        for extent in extents:
            blob, chunk = extent.blob, extent.chunk
            if blob is None or chunk is None:
                found = None
                spare: Buffer | None = _zeros(extent.size)
            else:
                found = self._find(blob, chunk)
                spare = None if found else self._spare(blob, chunk, extent, kept)
            if found is not None:
                at = chunk.offset + extent.start  # type: ignore[union-attr]
                if found is file and at == stop:
                    stop += extent.size
                    continue
            if file is not None:
                parts.append(file.piece(start, stop))
            file = found
            if found is not None:
                start, stop = at, at + extent.size
            elif spare is not None:
                parts.append(spare)
            else:
                return None
        if file is not None:
            parts.append(file.piece(start, stop))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def missing(
        self, extents: Iterable[Extent], kept: Mapping[Key, Buffer]
    ) -> dict[Key, tuple[Blob, Chunk]]:
        """Return the chunks that no cache file and no memory has."""
        absent = {}
        for extent in extents:
            blob, chunk = extent.blob, extent.chunk
            if blob is None or chunk is None:
                continue
            key = key_of(blob, chunk)
            shelf = self.shelves.get(blob.id)
            here = shelf is not None and shelf.find(chunk) is not None
            if not here and key not in kept and self._held.get(key) is None:
                absent[key] = (blob, chunk)
        return absent

    def copy(self, extents: Sequence[Extent], kept: Mapping[Key, Buffer]) -> bytes | None:
        """Return a copy like ``gather``, waiting for evictors; not in the event loop."""
        with ExitStack() as stack:
            for file in self._files(extents):
                stack.enter_context(file.lease.shared())
            parts = [self._copied(extent, kept) for extent in extents]
        return None if None in parts else b"".join(part for part in parts if part is not None)

    @contextmanager
    def held(self, extents: Sequence[Extent]) -> Iterator[Buffer | None]:
        """Lend the bytes of *extents* while the context lasts, across awaits and to threads."""
        leases = []
        try:
            for file in self._files(extents):
                if file.lease.share():
                    leases.append(file.lease)
            yield self.gather(extents)
        finally:
            for lease in leases:
                lease.release()

    def give_back(self) -> None:
        """Release the leases of the turn that is over; never awaits."""
        for lease in self._leases:
            lease.release()
        self._leases.clear()

    def _find(self, blob: Blob, chunk: Chunk) -> CacheFile | None:
        shelf = self.shelves.get(blob.id)
        if shelf is None:
            return None
        file = shelf.find(chunk)
        if file is None or file.lease in self._leases:
            return file
        if not file.lease.share():
            return None
        if not self._leases:
            trio.lowlevel.current_trio_token().run_sync_soon(self.give_back)
        self._leases.add(file.lease)
        return shelf.find(chunk)  # what was ready before the lease may be gone

    def _spare(
        self, blob: Blob, chunk: Chunk, extent: Extent, kept: Mapping[Key, Buffer] | None
    ) -> Buffer | None:
        if not self._held and not kept:
            return None
        key = key_of(blob, chunk)
        data = (kept or {}).get(key) or self._held.get(key)
        return None if data is None else memoryview(data)[extent.start : extent.stop]

    def _copied(self, extent: Extent, kept: Mapping[Key, Buffer]) -> Buffer | None:
        blob, chunk = extent.blob, extent.chunk
        if blob is None or chunk is None:
            return _zeros(extent.size)
        shelf = self.shelves.get(blob.id)
        for file in shelf.files if shelf is not None else ():
            if file.holds(chunk):
                return file.read(chunk.offset + extent.start, chunk.offset + extent.stop)
        return self._spare(blob, chunk, extent, kept)

    def _files(self, extents: Iterable[Extent]) -> set[CacheFile]:
        blobs = {extent.blob.id for extent in extents if extent.blob is not None}
        return {file for blob in blobs if blob in self.shelves for file in self.shelves[blob].files}


def _zeros(size: int) -> Buffer:
    return _ZEROS[:size] if size <= len(_ZEROS) else bytes(size)
