"""Verify: every chunk of an image read, decoded and hashed, several at a time.

Chunks that are stored side by side are read together, in ranges of bounded size, and batched ones
decoded once for all. Memory is what the threads have in hand.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from chunkstore import Blob, Buffer, Chunk, ChunkstoreError, Corrupt, Missing, Refused, codec

from .bootstrap import Bootstrap
from .finding import Finding

ReadStored = Callable[[str, int, int], Buffer]
"""Returns the stored bytes ``[start, stop)`` of a blob; raises ChunkstoreError. In any thread."""

Progress = Callable[[int, int], None]
"""Told the decoded bytes that were looked at since it was last told, and their chunks."""

_TOGETHER = 4 << 20
"""Stored bytes read at a time: long enough for an HTTP origin's latency not to matter."""
_AHEAD = 2
"""Reads waiting per thread, so that none idles while findings are handed out."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Chunks of one blob whose stored units adjoin."""

    blob: Blob
    chunks: list[Chunk]
    start: int
    stop: int


class _Gone(Exception):
    """A blob that cannot be read at all."""


def damages(
    bootstrap: Bootstrap,
    read: ReadStored,
    *,
    threads: int = 0,
    progress: Progress | None = None,
) -> Generator[Finding, None, None]:
    """Yield a finding for each chunk that *read* does not give the right bytes of.

    A blob that is missing or refused is one finding. Offsets are those of stored units in their
    blob. *threads* is 0 for one per core. *progress* is called in the caller's thread. Raises
    BadImage when the bootstrap itself cannot be followed; check that first.
    """
    count = threads or os.cpu_count() or 1
    pending: deque[tuple[_Group, Future[list[Finding]]]] = deque()
    gone: set[str] = set()
    with ThreadPoolExecutor(count, thread_name_prefix="verify") as pool:
        try:
            for group in _groups(bootstrap):
                if group.blob.id not in gone:
                    pending.append((group, pool.submit(_examine, read, group)))
                if len(pending) > count * _AHEAD:
                    yield from _taken(pending, gone, progress)
            while pending:
                yield from _taken(pending, gone, progress)
        finally:
            pool.shutdown(cancel_futures=True)


def _taken(
    pending: deque[tuple[_Group, Future[list[Finding]]]], gone: set[str], progress: Progress | None
) -> Iterator[Finding]:
    group, future = pending.popleft()
    try:
        yield from future.result()
    except _Gone as exc:
        if group.blob.id not in gone:
            yield Finding(f"blob {group.blob.id}", group.start, str(exc))
        gone.add(group.blob.id)
    if progress is not None:
        progress(sum(chunk.size for chunk in group.chunks), len(group.chunks))


def _groups(bootstrap: Bootstrap) -> Iterator[_Group]:
    for index, blob in enumerate(bootstrap.blobs):
        chunks: list[Chunk] = []
        start = stop = 0
        for chunk in bootstrap.chunks(index):
            again = chunks and chunk.stored_offset == chunks[-1].stored_offset
            adjoins = chunk.stored_offset == stop and chunk.stored_stop - start <= _TOGETHER
            if chunks and not again and not adjoins:
                yield _Group(blob, chunks, start, stop)
                chunks = []
            if not chunks:
                start = chunk.stored_offset
            chunks.append(chunk)
            stop = chunk.stored_stop
        if chunks:
            yield _Group(blob, chunks, start, stop)


def _examine(read: ReadStored, group: _Group) -> list[Finding]:
    """Return what is wrong with the chunks of *group*; raises _Gone."""
    try:
        data = memoryview(read(group.blob.id, group.start, group.stop))
    except (Missing, Refused) as exc:
        raise _Gone(str(exc)) from exc
    except ChunkstoreError as exc:
        return [_finding(group.blob, chunk, str(exc)) for chunk in group.chunks]
    found = []
    unit: Buffer = b""
    last: tuple[int, int, int] | None = None
    for chunk in group.chunks:
        place = (chunk.stored_offset, chunk.stored_size, chunk.unit_size or chunk.size)
        try:
            if place != last:
                last, unit = None, _decoded(data, chunk, group.start)
                last = place
            if not chunk.digest.matches(codec.slice_of(chunk, unit)):
                raise Corrupt(f"does not match its digest {chunk.digest}")
        except Corrupt as exc:
            found.append(_finding(group.blob, chunk, str(exc)))
    return found


def _decoded(data: memoryview, chunk: Chunk, start: int) -> Buffer:
    stored = data[chunk.stored_offset - start : chunk.stored_stop - start]
    if len(stored) != chunk.stored_size:
        raise Corrupt(f"{len(stored)} stored bytes of {chunk.stored_size}")
    return codec.decode(chunk.codec, stored, chunk.unit_size or chunk.size)


def _finding(blob: Blob, chunk: Chunk, what: str) -> Finding:
    return Finding(f"chunk {chunk.index} of blob {blob.id}", chunk.stored_offset, what)
