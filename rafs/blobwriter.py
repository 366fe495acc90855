"""A blob file while it is written: hashed by one thread and written by the next.

A blob is named by the SHA-256 of its whole file, so every byte is hashed on its way out. Hashing
(1.6 GB/s) and writing (2 GB/s) take longer than anything else that must happen in order, hence a
thread for each; at most ``QUEUE`` batches of ``BATCH`` bytes wait for either. The disk is kept busy
from the first megabytes on, so that the final sync has little left to wait for.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from chunkstore import Algorithm, Buffer, Digest

BATCH = 1 << 20
"""Bytes gathered before they are handed to the thread."""

QUEUE = 16
"""Batches that may wait for the thread."""

WRITEBACK = 8 << 20
"""Bytes after which the disk is told to begin."""

_JOIN = 64 << 10
"""Buffers below this are joined: hashing them one by one would cost more than copying them."""


class BlobWriter:
    """Writes one file front to back and knows its digest in the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        """Bytes handed in so far."""
        self._batch: list[Buffer] = []
        self._batched = 0
        self._sha256 = hashlib.sha256()
        self._failure: OSError | None = None
        self._abandoned = False
        self._written = self._started = 0
        self._queue: queue.Queue[Sequence[Buffer] | None] = queue.Queue(QUEUE)
        self._hashed: queue.Queue[Sequence[Buffer] | None] = queue.Queue(QUEUE)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._threads = [
            threading.Thread(target=self._hash, name="naiad-hash", daemon=True),
            threading.Thread(target=self._work, name="naiad-blob", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def write(self, data: Buffer) -> int:
        """Append *data*, which must not change any more; raises OSError, maybe of earlier data."""
        self._batch.append(data)
        size = len(data)
        self.size += size
        self._batched += size
        if self._batched >= BATCH:
            self._flush()
        return size

    def settle(self) -> None:
        """Wait until all that was handed in is in the file, if not on the disk; raises OSError."""
        self._flush()
        self._queue.join()
        self._hashed.join()
        self._raise_failure()

    def abandon(self) -> None:
        """Spare the file, which nobody wants any more, the way to the disk."""
        self._abandoned = True

    def finish(self) -> Digest:
        """Write what is left and return the file's SHA-256; raises OSError."""
        self.settle()
        self._queue.put(None)
        return Digest(Algorithm.SHA256, self._sha256.digest())

    def sync(self) -> None:
        """Wait, after ``finish``, until everything is on the disk; raises OSError."""
        self._join()
        self._raise_failure()

    def _flush(self) -> None:
        self._raise_failure()
        batch, self._batch, self._batched = self._batch, [], 0
        self._queue.put(batch)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _hash(self) -> None:
        while (batch := self._queue.get()) is not None:
            if len(batch) > 1 and sum(map(len, batch)) < len(batch) * _JOIN:
                batch = [b"".join(batch)]
            for data in batch:
                self._sha256.update(data)
            self._hashed.put(batch)
            self._queue.task_done()
        self._hashed.put(None)

    def _work(self) -> None:
        while (batch := self._hashed.get()) is not None:
            self._attempt(partial(self._store, batch))
            self._hashed.task_done()
        if not self._abandoned:
            self._attempt(partial(os.fsync, self._fd))

    def _attempt(self, step: Callable[[], None]) -> None:
        # After a failure the queue is still emptied, so that nobody waits for room in it.
        if self._failure is None:
            try:
                step()
            except OSError as exc:
                self._failure = exc

    def _store(self, batch: Sequence[Buffer]) -> None:
        for data in batch:
            _write_all(self._fd, data)
            self._written += len(data)
        if self._written - self._started >= WRITEBACK:
            # Linux begins to write such a range to the disk; pages on their way stay cached.
            span = self._started, self._written - self._started
            os.posix_fadvise(self._fd, *span, os.POSIX_FADV_DONTNEED)
            self._started = self._written

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._abandoned = self._abandoned or exc is not None
        self._queue.put(None)
        self._join()
        os.close(self._fd)


def _write_all(fd: int, data: Buffer) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
