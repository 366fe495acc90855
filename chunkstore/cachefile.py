"""A cache file: the decoded bytes of one blob in a sparse file, with its ready map and its lease.

The rules that keep it right (``lease`` and ``readymap`` say what their words mean):

- Bytes go to the data file, then the record's mark, then the state byte. A process killed anywhere
  in between leaves a slot that is not ready.
- Whoever reads or writes chunk bytes holds the lease shared. An evictor clears the states, takes
  the lease exclusive, clears them again (a writer may have finished in between), punches, releases.
- Nothing truncates a data file; it only grows, and its last user's going unlinks nothing.
- States may be ahead of the disk only in a boot that the header names: the first change after a
  clean close writes the boot's id, durably, before anything else.

Tasks: all methods but ``view`` and the state bytes may wait for the disk. Any thread may call them.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from .chunk import Blob, Chunk
from .digest import Buffer
from .holes import allocate, punch
from .lease import FolderLock, Lease
from .readymap import (
    CLAIMED,
    CLEAN,
    EMPTY,
    IN_USE,
    READY,
    UNVERIFIED,
    Header,
    ReadyMap,
    Record,
)

logger = logging.getLogger(__name__)

_LONGEST_NAME = 200
"""Characters of a blob id up to which it names its files; suffixes must fit into 255."""

ALLOCATED_FIRST = 64 << 10
"""Bytes from which a chunk's range is allocated before it is written; below, the call costs
more."""

SYNCED_AT_CLOSE = 256 << 20
"""Bytes written since opening up to which closing syncs. Past it the next boot verifies instead
(0.2 ms per MiB at first use), which is cheaper than an unmount that waits for the disk."""


@dataclass(frozen=True, slots=True)
class Place:
    """The two files of a cached blob."""

    folder: Path
    name: str
    """The blob id, or for a long one a hash that no id can be mistaken for."""

    @classmethod
    def of(cls, folder: Path, blob_id: str) -> Place:
        """Return where the blob lies in *folder*."""
        if len(blob_id) <= _LONGEST_NAME:
            return cls(folder, blob_id)
        return cls(folder, "_" + hashlib.sha256(blob_id.encode()).hexdigest())

    @property
    def data(self) -> Path:
        """The decoded bytes."""
        return self.folder / f"{self.name}.data"

    @property
    def map(self) -> Path:
        """The ready map."""
        return self.folder / f"{self.name}.map"

    @property
    def digest(self) -> bytes:
        """SHA-256 of the name, by which a map knows its blob."""
        return hashlib.sha256(self.name.encode()).digest()


class CacheFile:
    """One blob's cache file, opened by this process; shared with others through the filesystem."""

    def __init__(self, place: Place, lock: FolderLock, boot: bytes) -> None:
        self.place = place
        self._lock = lock
        self._boot = boot
        self._fresh = False
        self._soiled = False
        self._written = 0
        self._length = 0
        self.view: memoryview | None = None
        """The data file mapped; None where the address space has no room for it."""

    def open(self, blob: Blob) -> None:
        """Open or make the files; the folder's lock is held.

        Raises OSError when that is impossible now (ENOSPC, EMFILE, EFBIG).
        """
        with self._closing_on_error():
            self._begin(self._open_existing() or self._make(blob), blob.chunk_count, blob.size)

    def open_existing(self) -> bool:
        """Open the files if they are there and whole; the folder's lock is held."""
        with self._closing_on_error():
            header = self._open_existing()
            if header is not None:
                self._begin(header, header.chunk_count, header.size)
        return header is not None

    def _begin(self, header: Header, chunk_count: int, size: int) -> None:
        if header.boot not in (CLEAN, self._boot):
            self.map.distrust(header.chunk_count)
            header = replace(header, boot=self._boot)
            self.map.store(header)
        self._allot(header, chunk_count, size)
        fcntl.flock(self._map_fd, fcntl.LOCK_SH)
        self.lease = Lease(self._data_fd)

    @contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._close_files()
            raise

    def grow(self, blob: Blob) -> None:
        """Make room for a *blob* that claims more chunks or bytes; raises OSError."""
        if blob.chunk_count > self.map.chunk_count or blob.size > self._length:
            with self._lock:
                self._allot(self._header(), blob.chunk_count, blob.size)

    @property
    def quick(self) -> bool:
        """Whether a small write needs no wait for the disk: the map was synced as it must."""
        return self._soiled

    def state(self, index: int) -> int:
        """Return the state byte of slot *index*."""
        return self.map.states[index]

    def holds(self, chunk: Chunk) -> bool:
        """Say whether *chunk* is ready, trusting nothing; wipes a state that its record denies."""
        if chunk.index >= self.map.chunk_count or self.map.states[chunk.index] != READY:
            return False
        if self.map.trusted(chunk):
            return True
        record = self.map.record(chunk.index)
        if (record is None or not record.marked) and self.lease.share():
            try:
                self._wipe_denied(chunk.index)
            finally:
                self.lease.release()
        return False

    def _wipe_denied(self, index: int) -> None:
        # Looked at again under the lease: outside it, an evictor may just have been at work.
        record = self.map.record(index)
        if self.map.states[index] == READY and (record is None or not record.marked):
            self.map.states[index] = CLAIMED
            logger.warning("ready state without a record blob=%s slot=%d", self.name, index)

    def put(self, chunk: Chunk, data: Buffer, *, use: int = IN_USE) -> bool:
        """Write *data*, which matches *chunk*'s digest; False where the slot is another chunk's.

        Raises OSError when there is no room, or the disk fails.
        """
        if (
            chunk.index >= self.map.chunk_count
            or not 0 <= chunk.offset < chunk.stop <= self._length
        ):
            return False
        if self.map.states[chunk.index] == EMPTY or not self.map.matches(chunk):
            with self._lock:
                if not self.map.claim(chunk):
                    return False
        self._soil()
        with self.lease.shared():
            if self.map.states[chunk.index] != READY or not self.map.trusted(chunk):
                self._write(chunk, data)
            self.map.uses[chunk.index] = use
        return True

    def verify(self, chunk: Chunk) -> bool:
        """Hash a chunk that a crash made doubtful; it is ready or dropped afterwards."""
        if chunk.index >= self.map.chunk_count or not self.map.matches(chunk):
            return False
        return self.check(chunk.index) is True

    def check(self, index: int) -> bool | None:
        """Hash slot *index* as its record says; drop it when it does not match.

        None where there is nothing to check: not ready, or not claimed.
        """
        record = self.map.record(index)
        if record is None:
            return None
        self._soil()
        with self.lease.shared():
            if self.map.states[index] not in (READY, UNVERIFIED):
                return None
            if record.digest.matches(os.pread(self._data_fd, record.size, record.offset)):
                if self.map.states[index] == UNVERIFIED:
                    self.map.mark(index)
                    self.map.states[index] = READY
                return True
            self.map.states[index] = CLAIMED
            self.map.unmark(index)
        logger.warning("bad chunk dropped blob=%s slot=%d", self.name, index)
        return False

    def drop(self, index: int) -> None:
        """Make slot *index* missing, so that its next reader fetches it."""
        if index < self.map.chunk_count and self.map.states[index] in (READY, UNVERIFIED):
            self.map.states[index] = CLAIMED

    def piece(self, start: int, stop: int) -> Buffer:
        """Return bytes of the data file, a view if it is mapped; the lease is held."""
        return self.read(start, stop) if self.view is None else self.view[start:stop]

    def read(self, start: int, stop: int) -> bytes:
        """Return a copy of bytes of the data file; the lease is held."""
        return os.pread(self._data_fd, stop - start, start)

    def evict(self, indices: Sequence[int], patience: float) -> int:
        """Punch holes where the chunks *indices* lie; return the bytes freed, 0 if in use."""
        self._soil()
        records = [(i, r) for i in indices if (r := self.map.record(i)) is not None]
        for index, _ in records:
            self._clear(index)
        with self.lease.exclusive(patience) as alone:
            if not alone:
                return 0
            before = self.allocated
            for index, record in records:
                self._punch(index, record)
            return max(0, before - self.allocated)

    @property
    def name(self) -> str:
        """The blob as its files call it."""
        return self.place.name

    @property
    def allocated(self) -> int:
        """Bytes that the data file takes on the disk."""
        return os.fstat(self._data_fd).st_blocks * 512

    @property
    def ready_size(self) -> int:
        """Bytes of the chunks that are ready, and of those that a crash made doubtful."""
        states = self.map.states
        return sum(r.size for i, r in self.map.records() if states[i] in (READY, UNVERIFIED))

    def touch(self) -> None:
        """Note the use of the whole blob, which eviction of unused blobs goes by."""
        os.utime(self._map_fd)

    def close(self) -> None:
        """Close the files; the last user of a little-written blob leaves it synced and clean."""
        if self._soiled and self._written <= SYNCED_AT_CLOSE:
            self._sync()
            with self._lock:
                self._leave_clean()
        self._close_files()

    def _write(self, chunk: Chunk, data: Buffer) -> None:
        if chunk.size >= ALLOCATED_FIRST:
            allocate(self._data_fd, chunk.offset, chunk.stop)
        done = 0
        with memoryview(data) as rest:
            while done < chunk.size:
                done += os.pwrite(self._data_fd, rest[done:], chunk.offset + done)
        self._written += chunk.size
        self.map.mark(chunk.index)
        self.map.states[chunk.index] = READY

    def _clear(self, index: int) -> None:
        if self.map.states[index] in (READY, UNVERIFIED):
            self.map.states[index] = CLAIMED

    def _punch(self, index: int, record: Record) -> None:
        self._clear(index)
        self.map.unmark(index)
        punch(self._data_fd, record.offset, record.offset + record.size)

    def _soil(self) -> None:
        """Say in the header that states may be ahead of the disk, durably, before they are."""
        if self._soiled:
            return
        if not self._fresh:
            with self._lock:
                header = self._header()
                if header.boot == CLEAN:
                    self.map.store(replace(header, boot=self._boot))
            os.fdatasync(self._map_fd)
        self._soiled = True

    def _leave_clean(self) -> None:
        """Take the boot id out of the header if nobody else has the file open."""
        try:
            fcntl.flock(self._map_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        self._sync()  # what others wrote since; mostly nothing, as the folder waits for it
        self.map.store(replace(self._header(), boot=CLEAN))
        os.fdatasync(self._map_fd)

    def _sync(self) -> None:
        os.fdatasync(self._data_fd)
        os.fdatasync(self._map_fd)

    def _header(self) -> Header:
        header = self.map.load()
        if header is None:
            raise OSError(errno.EIO, f"the map of {self.name} was damaged while in use")
        return header

    def _open_existing(self) -> Header | None:
        """Open the pair of files if it is whole and ours; otherwise put it away."""
        try:
            self._data_fd = os.open(self.place.data, os.O_RDWR | os.O_CLOEXEC)
            self._map_fd = os.open(self.place.map, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            self._put_away()
            return None
        self.map = ReadyMap(self._map_fd)
        header, data = self.map.load(), os.fstat(self._data_fd)
        if (
            header is None
            or header.inode != data.st_ino
            or header.size > data.st_size
            or header.name != self.place.digest
        ):
            logger.warning("damaged or foreign map set aside blob=%s", self.name)
            self._put_away()
            return None
        return header

    def _make(self, blob: Blob) -> Header:
        """Make both files, the map last and whole under its name."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        unfinished = self.place.map.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        self._data_fd = os.open(self.place.data, flags, 0o600)
        try:
            os.ftruncate(self._data_fd, blob.size)
            self._map_fd = os.open(unfinished, flags, 0o600)
            self.map = ReadyMap(self._map_fd)
            inode = os.fstat(self._data_fd).st_ino
            header = Header(blob.chunk_count, blob.size, inode, self._boot, self.place.digest)
            self.map.store(header)
            unfinished.rename(self.place.map)
        except BaseException:
            self.place.data.unlink()
            unfinished.unlink(missing_ok=True)
            raise
        self._fresh = True
        return header

    def _allot(self, header: Header, chunk_count: int, size: int) -> None:
        """Give the files room for a blob and map it; the folder's lock is held."""
        count, room = max(header.chunk_count, chunk_count), max(header.size, size)
        if (count, room) != (header.chunk_count, header.size):
            if room > os.fstat(self._data_fd).st_size:
                os.ftruncate(self._data_fd, room)
            self.map.store(replace(header, chunk_count=count, size=room))
        if count > self.map.chunk_count:
            self.map.map(count)
        if size > self._length or self.view is None:
            self._length = max(self._length, size)
            self.view = _mapped(self._data_fd, self._length)

    def _put_away(self) -> None:
        """Free the names: the map is kept for a look, bytes without a map are no use."""
        self._close_files()
        if self.place.map.exists():
            self.place.map.replace(self.place.map.with_suffix(".damaged"))
        self.place.data.unlink(missing_ok=True)

    def _close_files(self) -> None:
        for name in ("_data_fd", "_map_fd"):
            fd = self.__dict__.pop(name, None)
            if fd is not None:
                os.close(fd)


def _mapped(fd: int, length: int) -> memoryview | None:
    """Map the data file for reading; None where that is impossible."""
    if length == 0:
        return memoryview(b"")
    try:
        return memoryview(mmap.mmap(fd, length, prot=mmap.PROT_READ))
    except (OSError, OverflowError):
        return None
