"""Views: what can be answered at once, out of mapped cache files and held chunks.

Tasks: of the event loop, but for ``copy``. A lease that a view needs is shared at the first look
and given back a moment later, when whoever looked has awaited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import trio

from .cachefile import CacheFile, DirectRead, buffers
from .chunk import Blob, Chunk, Extent
from .digest import Buffer
from .doubles import Doubles
from .held import Held
from .lease import Lease
from .shelf import BlobShelf
from .wanted import Key, key_of

LENT = 0.005
"""Seconds that a lease is kept: to share it anew for each look costs more than the look itself, and
an evictor that has to wait so long does not mind."""

_ZEROS = memoryview(bytes(1 << 20))

_Find = Callable[[Blob, Chunk], CacheFile | None]


@dataclass(slots=True)
class _Run:
    """Bytes that lie in one piece: of a cache file, of memory, or of a hole (None)."""

    source: CacheFile | Buffer | None
    start: int
    stop: int


class Views:
    """The extents of one image, as far as they are here."""

    def __init__(self, held: Held) -> None:
        self.shelves: dict[str, BlobShelf] = {}
        """The open blobs by id."""
        self._held = held
        self.doubles = Doubles()
        self._leases: set[Lease] = set()
        """Shared for at least this turn of the event loop."""
        self._lent: Buffer | None = None
        """What the last reply was made of."""

    def gather(
        self,
        extents: Sequence[Extent],
        kept: Mapping[Key, Buffer] | None = None,
        *,
        prompt: bool = False,
    ) -> Buffer | None:
        """Return the bytes of *extents*, from *kept* where the cache has them not, else None.

        One view where they lie in one piece, a copy where they do not. With *prompt* None also
        where much would have to come from the disk: that is for ``copy``, in a thread.
        """
        runs = self._runs(extents, kept or {}, self._find_leased)
        if runs is None or (prompt and not all(map(_is_prompt, runs))):
            return None
        for run in runs:
            if isinstance(run.source, CacheFile):
                self.doubles.note(run.source, run.start, run.stop)
        return _joined(runs)

    def copy(self, extents: Sequence[Extent], kept: Mapping[Key, Buffer]) -> Buffer | None:
        """Return a copy like ``gather``, waiting for evictors; not in the event loop."""
        with ExitStack() as stack:
            for file in self._files(extents):
                stack.enter_context(file.lease.shared())
            runs = self._runs(extents, kept, self._find)
            return None if runs is None else _read(runs)

    def from_disk(self, extents: Sequence[Extent]) -> Buffer | None:
        """Return a copy like ``copy``, None also of what is in memory; not in the event loop."""
        with ExitStack() as stack:
            for file in self._files(extents):
                stack.enter_context(file.lease.shared())
            runs = self._runs(extents, {}, self._find)
            return None if runs is None or all(map(_is_prompt, runs)) else _read(runs)

    def hasten(self, blob: Blob, start: int, stop: int) -> None:
        """Have the disk begin to read decoded bytes of *blob*, whatever is there."""
        shelf = self.shelves.get(blob.id)
        if shelf is not None:
            shelf.files[0].expect(start, stop)

    def direct_read(self, extents: Sequence[Extent]) -> tuple[Lease, DirectRead] | None:
        """Return how to read *extents* past the page cache, and a share of the lease for it.

        None where they are not one piece of a file, and holes, or are in memory; and where an
        evictor is at work.
        """
        blob, chunk = extents[0].blob, extents[0].chunk
        file = None if blob is None or chunk is None else self._find(blob, chunk)
        if file is None or not file.lease.share():
            return None
        read = _direct_read(file, self._runs(extents, {}, self._find))
        if read is None:
            file.lease.release()
            return None
        return file.lease, read

    def lend(self, data: Buffer | None) -> Buffer | None:
        """Return *data*; if it is a kept buffer, that is used again later."""
        if data is not None:
            self._give_back_soon()
            # Whoever got the one before this has awaited since, or this would not be called.
            buffers.give(self._lent)
            self._lent = data
        return data

    @contextmanager
    def held(self, extents: Sequence[Extent], *, paged_in: bool = True) -> Iterator[Buffer | None]:
        """Lend the bytes of *extents* while the context lasts, across awaits and to threads.

        What was not *paged_in* may only be handed to the kernel, which answers EFAULT where others
        are killed by SIGBUS.
        """
        leases = [file.lease for file in self._files(extents) if file.lease.share()]
        try:
            runs = self._runs(extents, {}, self._find_leased)
            yield None if runs is None else _joined(runs, paged_in=paged_in)
        finally:
            for lease in leases:
                lease.release()

    def let_go(self, extents: Iterable[Extent]) -> int:
        """Let the kernel drop its pages of *extents*; return how many bytes stayed."""
        runs: list[tuple[CacheFile, int, int]] = []
        for extent in extents:
            blob, chunk = extent.blob, extent.chunk
            file = None if blob is None or chunk is None else self._find(blob, chunk)
            if file is None or chunk is None:
                continue
            start, stop = chunk.offset + extent.start, chunk.offset + extent.stop
            if runs and runs[-1][0] is file and runs[-1][2] == start:
                runs[-1] = (file, runs[-1][1], stop)
            else:
                runs.append((file, start, stop))
        for file, start, stop in runs:
            file.let_go(start, stop)
        return sum(file.cached_size(start, stop) for file, start, stop in runs)

    def missing(
        self, extents: Iterable[Extent], kept: Mapping[Key, Buffer]
    ) -> dict[Key, tuple[Blob, Chunk]]:
        """Return the chunks that no cache file and no memory has."""
        absent = {}
        for extent in extents:
            blob, chunk = extent.blob, extent.chunk
            if blob is None or chunk is None or self._find(blob, chunk) is not None:
                continue
            if self._spare(blob, chunk, kept) is None:
                absent[key_of(blob, chunk)] = (blob, chunk)
        return absent

    def _give_back_soon(self) -> None:
        if not self._leases and self._lent is None:
            trio.lowlevel.spawn_system_task(self._give_back_later)

    async def _give_back_later(self) -> None:
        await trio.sleep(LENT)
        self.give_back()

    def give_back(self) -> None:
        """Release the leases of the looks that are over; never awaits."""
        for lease in self._leases:
            lease.release()
        self._leases.clear()
        buffers.give(self._lent)
        self._lent = None

    def _runs(
        self, extents: Sequence[Extent], kept: Mapping[Key, Buffer], find: _Find
    ) -> list[_Run] | None:
        runs: list[_Run] = []
        last = None
        for extent in extents:
            blob, chunk = extent.blob, extent.chunk
            source: CacheFile | Buffer | None = None
            at = extent.start
            if blob is not None and chunk is not None:
                source = find(blob, chunk)
                if source is not None:
                    at += chunk.offset
                else:
                    source = self._spare(blob, chunk, kept)
                    if source is None:
                        return None
            if last is not None and last.source is source and last.stop == at:
                last.stop += extent.size
            else:
                last = _Run(source, at, at + extent.size)
                runs.append(last)
        return runs

    def _find(self, blob: Blob, chunk: Chunk) -> CacheFile | None:
        shelf = self.shelves.get(blob.id)
        return None if shelf is None else shelf.find(chunk)

    def _find_leased(self, blob: Blob, chunk: Chunk) -> CacheFile | None:
        """Find *chunk* and share the lease of its file for this turn of the event loop."""
        file = self._find(blob, chunk)
        if file is None or file.lease in self._leases:
            return file
        if not file.lease.share():
            return None
        self._give_back_soon()
        self._leases.add(file.lease)
        return self._find(blob, chunk)  # what was ready before the lease may be gone

    def _spare(self, blob: Blob, chunk: Chunk, kept: Mapping[Key, Buffer]) -> Buffer | None:
        if not self._held and not kept:
            return None
        key = key_of(blob, chunk)
        return kept.get(key) or self._held.get(key)

    def _files(self, extents: Iterable[Extent]) -> set[CacheFile]:
        blobs = {extent.blob.id for extent in extents if extent.blob is not None}
        return {file for blob in blobs if blob in self.shelves for file in self.shelves[blob].files}


def _is_prompt(run: _Run) -> bool:
    return not isinstance(run.source, CacheFile) or run.source.prompt(run.start, run.stop)


def _direct_read(file: CacheFile, runs: Sequence[_Run] | None) -> DirectRead | None:
    """Return how to read *runs*, which must be one of *file* and holes, past the page cache."""
    if not runs or runs[0].source is not file or _is_prompt(runs[0]):
        return None
    first, *holes = runs
    if any(run.source is not None for run in holes):
        return None
    return file.direct_read(first.start, first.stop, sum(run.stop - run.start for run in holes))


def _read(runs: Sequence[_Run]) -> Buffer | None:
    """Read *runs* into a kept buffer, one large one past the page cache; None where that fails."""
    data = None
    first, *holes = runs
    alone = not any(run.source is not None for run in holes)
    if alone and isinstance(first.source, CacheFile) and not _is_prompt(first):
        zeros = sum(run.stop - run.start for run in holes)
        data = first.source.directly(first.start, first.stop, zeros)
    if data is not None:
        return data
    whole = buffers.take(sum(run.stop - run.start for run in runs))
    if _fill(whole, runs):
        return whole
    buffers.give(whole)
    return None


def _joined(runs: Sequence[_Run], *, paged_in: bool = True) -> Buffer | None:
    if len(runs) != 1:
        return _copied(runs)
    (run,) = runs
    if isinstance(run.source, CacheFile):
        return run.source.piece(run.start, run.stop, paged_in=paged_in)
    if run.source is None:
        size = run.stop - run.start
        return _ZEROS[:size] if size <= len(_ZEROS) else bytes(size)
    return memoryview(run.source)[run.start : run.stop]


def _copied(runs: Sequence[_Run]) -> Buffer | None:
    """Copy *runs* into one buffer; None where a cache file cannot be read."""
    buffer = bytearray(sum(run.stop - run.start for run in runs))
    with memoryview(buffer) as whole:
        return buffer if _fill(whole, runs) else None


def _fill(whole: memoryview, runs: Sequence[_Run]) -> bool:
    """Copy *runs* into *whole*, whatever it held before; say whether all could be read."""
    done = 0
    for run in runs:
        size = run.stop - run.start
        into = whole[done : done + size]
        done += size
        if isinstance(run.source, CacheFile):
            if not run.source.read(run.start, into):
                return False
        elif run.source is not None:
            into[:] = memoryview(run.source)[run.start : run.stop]
        else:
            into[:] = bytes(size)
    return True
