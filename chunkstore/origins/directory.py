"""DirectoryOrigin: a folder of blobs on a disk, near or far.

What the page cache holds is read at once; everything else in a few threads of its own, into memory
of theirs, so that a file server that hangs holds up neither the event loop nor a cancelled read.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import trio

from chunkstore.errors import ChunkstoreError, Corrupt, Malformed, Missing, Refused, Unreachable
from chunkstore.source import Arrived

T = TypeVar("T")

_PIECE = 1 << 20
"""Bytes read at once: a thread's round trip (0.1 ms) is then a tenth of the copy."""

_OPEN = 64
"""Files kept open."""

_THREADS = 8
"""Reads that may wait for the disk at a time."""


class DirectoryOrigin:
    """Reads ``blobs/ID`` and small documents in a folder."""

    def __init__(self, path: Path, *, folder: str = "blobs", patience: float = 30.0) -> None:
        """Allow *patience* seconds for a megabyte."""
        self._path = path
        self._folder = folder
        self._patience = patience
        self._threads = trio.CapacityLimiter(_THREADS)
        self._files: OrderedDict[str, _File] = OrderedDict()

    async def read(self, blob_id: str, start: int, into: memoryview, arrived: Arrived) -> None:
        """Fill *into* with the stored bytes from *start* on, calling *arrived* as they come."""
        file = await self._file(blob_id)
        count = 0
        while count < len(into):
            more = await self._piece(file, start + count, into[count : count + _PIECE])
            if not more:
                raise Corrupt(f"{self._name(blob_id)}: ends at {start + count}")
            count += more
            arrived(count)

    async def _piece(self, file: _File, start: int, into: memoryview) -> int:
        count = file.read_now(into, start)
        if count is not None:
            await trio.lowlevel.checkpoint()
            return count
        data = await self._aside(partial(file.read, len(into), start))
        into[: len(data)] = data
        return len(data)

    async def size(self, blob_id: str) -> int:
        """Return the bytes of the whole stored file."""
        file = await self._file(blob_id)
        return await self._aside(file.size)

    async def document(self, name: str, limit: int) -> bytes:
        """Return the small file *name* beside the blobs' folder, of at most *limit* bytes."""
        data = await self._aside(partial(_head, self._path / name, limit + 1))
        if len(data) > limit:
            raise Corrupt(f"{self._path / name}: more than the {limit} bytes that are the most")
        return data

    async def download(self, name: str, out: BinaryIO, limit: int) -> int:
        """Write the file *name* beside the blobs' folder to *out*; return its bytes."""
        file = await self._aside(partial(_File, self._path / name))
        count = 0
        while data := await self._aside(partial(file.read, _PIECE, count)):
            count += len(data)
            if count > limit:
                raise Corrupt(f"{self._path / name}: more than {limit} bytes")
            out.write(data)
        return count

    async def _file(self, blob_id: str) -> _File:
        file = self._files.get(blob_id)
        if file is None:
            if "/" in blob_id or blob_id in ("", ".", ".."):
                raise Malformed(f"a blob id that is no file name: {blob_id[:100]!r}")
            file = await self._aside(partial(_File, self._name(blob_id)))
            self._files[blob_id] = file
            if len(self._files) > _OPEN:
                self._files.popitem(last=False)
        self._files.move_to_end(blob_id)
        return file

    async def _aside(self, work: Callable[[], T]) -> T:
        try:
            with trio.move_on_after(self._patience):
                return await trio.to_thread.run_sync(
                    work, abandon_on_cancel=True, limiter=self._threads
                )
        except OSError as exc:
            raise _translated(exc) from exc
        raise Unreachable(f"{self._path}: no answer in {self._patience:g} s")

    def _name(self, blob_id: str) -> Path:
        return self._path / self._folder / blob_id

    def __repr__(self) -> str:
        return f"DirectoryOrigin({self._path})"


class _File:
    """An open file; closed when the last reader lets go of it."""

    def __init__(self, path: Path) -> None:
        self._fd = -1
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def read(self, size: int, start: int) -> bytes:
        """Read at most *size* bytes, fewer at the end."""
        return os.pread(self._fd, size, start)

    def read_now(self, into: memoryview, start: int) -> int | None:
        """Read what memory holds of it, None if it is nothing or cannot be known."""
        try:
            return os.preadv(self._fd, [into], start, os.RWF_NOWAIT) or None
        except OSError:
            return None

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _translated(exc: OSError) -> ChunkstoreError:
    if isinstance(exc, FileNotFoundError | NotADirectoryError):
        return Missing(f"{exc.filename}: not there")
    if isinstance(exc, PermissionError | IsADirectoryError):
        return Refused(f"{exc.filename}: {exc.strerror}")
    return Unreachable(f"{exc.filename or 'disk'}: {exc.strerror}")
