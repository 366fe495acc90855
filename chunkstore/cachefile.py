"""A cache file: the chunks of one blob, as this process has them open, shared with others.

The rules that keep it right (``lease``, ``readymap`` and ``filepair`` say what their words mean):

- Bytes go to the data file, then the record's mark, then the state byte. A process killed anywhere
  in between leaves a slot that is not ready.
- Whoever reads or writes chunk bytes holds the lease shared. An evictor clears the states, takes
  the lease exclusive, clears them again (a writer may have finished in between), punches, releases.
- Nothing truncates a data file; it only grows, and its last user's going unlinks nothing.

Tasks: all methods but ``holds``, ``drop`` and ``piece`` may wait for the disk or for evictors. Any
thread may call any.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from . import direct
from .chunk import Blob, Chunk
from .digest import Buffer
from .filepair import FilePair, Place
from .holes import allocate, punch
from .lease import FolderLock, Lease
from .outfile import Going, copy
from .readymap import CLAIMED, EMPTY, IN_USE, READY, UNVERIFIED, ReadyMap, Record

logger = logging.getLogger(__name__)

_POPULATE_READ = 22
"""MADV_POPULATE_READ, Linux 5.14: an error where touching the page would be SIGBUS."""

buffers = direct.Buffers()
"""For the direct reads of this process."""

ALLOCATED_FIRST = 64 << 10
"""Bytes from which a chunk's range is allocated before it is written; below, the call costs more
than it saves."""


WRITTEN_AT_ONCE = 256 << 10
"""Bytes of one write. Longer ones make the kernel look for larger runs of free pages, which took
1.3 s of system time per GiB instead of 0.5 [ext4, Linux 6.18]."""


@dataclass(frozen=True, slots=True)
class DirectRead:
    """A read past the page cache into one of `buffers`."""

    fd: int
    start: int
    into: memoryview
    whole: memoryview
    size: int
    """Bytes that are wanted of what is read."""
    zeros: int
    """Bytes of a hole behind them."""

    def ended(self, result: int) -> memoryview | None:
        """Return the bytes, None where *result*, how many came, are too few."""
        if result < self.size:
            buffers.give(self.whole)
            return None
        stop = self.size + self.zeros
        if self.zeros:
            self.whole[self.size : stop] = bytes(self.zeros)
        return self.whole[:stop]


class CacheFile:
    """One blob's cache file."""

    def __init__(self, place: Place, lock: FolderLock, boot: bytes) -> None:
        self._pair = FilePair(place, lock, boot)

    def open(self, blob: Blob) -> None:
        """Open or make the files; the folder's lock is held. Raises OSError."""
        self._pair.open(blob.chunk_count, blob.size)
        self.lease = Lease(self._pair.data_fd)

    def open_existing(self) -> bool:
        """Open the files if they are there and whole; the folder's lock is held."""
        if not self._pair.open_existing():
            return False
        self.lease = Lease(self._pair.data_fd)
        return True

    def grow(self, blob: Blob) -> None:
        """Make room for a *blob* that claims more chunks or bytes; raises OSError."""
        self._pair.grow(blob.chunk_count, blob.size)

    @property
    def place(self) -> Place:
        """Where the files are."""
        return self._pair.place

    @property
    def map(self) -> ReadyMap:
        """The state, use and record of each slot."""
        return self._pair.map

    @property
    def size(self) -> int:
        """Bytes of the decoded blob, as far as this process knows."""
        return self._pair.length

    @property
    def quick(self) -> bool:
        """Whether a small write waits for nothing: the map is synced as it must, nobody evicts."""
        return self._pair.soiled and not self.lease.barred

    @property
    def allocated(self) -> int:
        """Bytes that the data file takes on the disk."""
        return os.fstat(self._pair.data_fd).st_blocks * 512

    def holds(self, chunk: Chunk) -> bool:
        """Say whether *chunk* is ready, trusting nothing; wipes a state that its record denies."""
        index, ready_map = chunk.index, self._pair.map
        if index >= ready_map.chunk_count or ready_map.states[index] != READY:
            return False
        if ready_map.trusted(chunk):
            return True
        if self._denied(index) and self.lease.share():
            try:
                # Looked at again under the lease: before it, an evictor may have been at work.
                if ready_map.states[index] == READY and self._denied(index):
                    ready_map.states[index] = CLAIMED
                    logger.warning(
                        "state without a record wiped blob=%s slot=%d", self.place.name, index
                    )
            finally:
                self.lease.release()
        return False

    def admits(self, chunk: Chunk) -> bool:
        """Say whether the file has a slot and a place for *chunk*, whoever they are for."""
        place = 0 <= chunk.offset < chunk.stop <= self._pair.length
        return place and 0 <= chunk.index < self.map.chunk_count

    def put(self, chunk: Chunk, data: Buffer, *, use: int = IN_USE) -> bool:
        """Write *data*, which matches *chunk*'s digest; False where the slot is another chunk's.

        Raises OSError when there is no room, or the disk fails.
        """
        if not self.admits(chunk):
            return False
        index, ready_map = chunk.index, self.map
        if ready_map.states[index] == EMPTY or not ready_map.matches(chunk):
            with self._pair.lock:
                if not ready_map.claim(chunk):
                    return False
        self._pair.soil()
        with self.lease.shared():
            if ready_map.states[index] != READY or not ready_map.trusted(chunk):
                self._write(chunk, data)
                ready_map.mark(index)
                ready_map.states[index] = READY
            ready_map.uses[index] = use
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
        with self.lease.shared():
            state = self.map.states[index]
            if state not in (READY, UNVERIFIED):
                return None
            intact = self._intact(record)
            if state == READY and intact:
                return True
            self._pair.soil()
            if intact:
                self.map.mark(index)
                self.map.states[index] = READY
                return True
            self.map.states[index] = CLAIMED
            self.map.unmark(index)
        logger.warning("bad chunk dropped blob=%s slot=%d", self.place.name, index)
        return False

    def drop(self, index: int) -> None:
        """Make slot *index* missing, so that its next reader fetches it."""
        if index < self.map.chunk_count and self.map.states[index] in (READY, UNVERIFIED):
            self.map.states[index] = CLAIMED

    def piece(self, start: int, stop: int, *, paged_in: bool = True) -> Buffer | None:
        """Return bytes of the data file, a view if it could be paged in; the lease is held.

        A view that need not be *paged_in* is only for the kernel to read.
        """
        view = self._pair.view
        if view is not None:
            if paged_in or not self.in_memory(start, stop):
                self.expect(start, stop)
            if not paged_in or _paged_in(view, start, stop):
                return view[start:stop]
        data = bytearray(stop - start)
        return data if self.read(start, memoryview(data)) else None

    def prompt(self, start: int, stop: int) -> bool:
        """Say whether bytes are few, or in the page cache: nobody waits long for them."""
        return stop - start < direct.SMALLEST or direct.resident(self._pair.data_fd, start, stop)

    def directly(self, start: int, stop: int, zeros: int = 0) -> memoryview | None:
        """Read bytes of the data file past the page cache, None where they cannot be had so.

        *zeros* follow. The lease is held. The memory is one of `buffers`, the caller's until it
        gives it back.
        """
        read = self.direct_read(start, stop, zeros)
        if read is None:
            return None
        try:
            return read.ended(os.preadv(read.fd, [read.into], start))
        except OSError as exc:  # the caller finds out why
            return read.ended(-(exc.errno or errno.EIO))

    def direct_read(self, start: int, stop: int, zeros: int = 0) -> DirectRead | None:
        """Return what to read so, and where to, for whoever lets it be read."""
        fd, size = self._pair.direct_fd, stop - start
        rounded = -(-size // direct.BLOCK) * direct.BLOCK
        if fd < 0 or start % direct.BLOCK or max(rounded, size + zeros) > direct.LARGEST:
            return None
        whole = buffers.take(max(rounded, size + zeros))
        return DirectRead(fd, start, whole[:rounded], whole, size, zeros)

    def read(self, start: int, into: memoryview) -> bool:
        """Copy bytes of the data file, False where that fails; the lease is held.

        Not out of the mapped view, which answers a bad block with SIGBUS.
        """
        try:
            return os.preadv(self._pair.data_fd, [into], start) == len(into)
        except OSError as exc:
            logger.warning("cannot be read blob=%s reason=%s", self.place.name, exc.strerror)
            return False

    def export(self, out: int, size: int, going: Going) -> str:
        """Make the file *out* the first *size* bytes; return how. The lease is held."""
        return copy(self._pair.data_fd, out, size, going)

    def in_memory(self, start: int, stop: int) -> bool:
        """Say whether the first and last of these bytes can be had without the disk."""
        try:
            for place in (start, stop - 1):
                os.preadv(self._pair.data_fd, [bytearray(1)], place, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError:  # a file system that does not know the question
            return True
        return True

    def pass_on(self, out: int, start: int, size: int) -> int:
        """Send bytes of the data file to the socket *out*, uncopied; the lease is held.

        Returns how many; raises OSError, BlockingIOError where the socket takes none now.
        """
        return os.sendfile(out, self._pair.data_fd, start, size)

    def expect(self, start: int, stop: int) -> None:
        """Have the kernel begin to read bytes of the data file that will be asked for."""
        with suppress(OSError):  # advice
            os.posix_fadvise(self._pair.data_fd, start, stop - start, os.POSIX_FADV_WILLNEED)

    def cached_size(self, start: int, stop: int) -> int:
        """Return how many bytes of the data file are in memory; 0 if nobody knows."""
        return direct.cached(self._pair.data_fd, start, stop) or 0

    def is_fresh(self, start: int, stop: int) -> bool:
        """Say whether bytes were put that the kernel has not written to the disk yet."""
        return direct.dirty(self._pair.data_fd, start, stop)

    def let_go(self, start: int, stop: int) -> None:
        """Let the kernel drop its pages of the data file: it has their bytes elsewhere as well.

        What is not on the disk yet stays, and begins to be written.
        """
        view = self._pair.view
        if view is None:
            return
        start, stop = start & -mmap.PAGESIZE, min(stop, len(view))
        if isinstance(view.obj, mmap.mmap) and start < stop:
            with suppress(OSError):  # advice
                view.obj.madvise(mmap.MADV_DONTNEED, start, stop - start)
                os.posix_fadvise(self._pair.data_fd, start, stop - start, os.POSIX_FADV_DONTNEED)

    def evict(self, indices: Sequence[int], patience: float) -> int:
        """Punch holes where the chunks *indices* lie; return the bytes freed, 0 if in use."""
        self._pair.soil()
        records = [(i, r) for i in indices if (r := self.map.record(i)) is not None]
        for index, _ in records:
            self.drop(index)
        with self.lease.exclusive(patience) as alone:
            if not alone:
                return 0
            before = self.allocated
            for index, record in records:
                self.drop(index)
                self.map.unmark(index)
                punch(self._pair.data_fd, record.offset, record.offset + record.size)
            return max(0, before - self.allocated)

    def touch(self) -> None:
        """Note the use of the whole blob, which eviction of unused blobs goes by."""
        self._pair.touch()

    def close(self) -> None:
        """Close the files; may wait for the disk."""
        self.lease.close()
        self._pair.close()

    def _write(self, chunk: Chunk, data: Buffer) -> None:
        if chunk.size >= ALLOCATED_FIRST:
            allocate(self._pair.data_fd, chunk.offset, chunk.stop)
        done = 0
        with memoryview(data) as rest:
            while done < chunk.size:
                step = rest[done : done + WRITTEN_AT_ONCE]
                done += os.pwrite(self._pair.data_fd, step, chunk.offset + done)
        self._pair.written += chunk.size

    def _denied(self, index: int) -> bool:
        """Say whether slot *index* has no record that says its bytes are in place."""
        record = self.map.record(index)
        return record is None or not record.marked

    def _intact(self, record: Record) -> bool:
        data = bytearray(record.size)
        return self.read(record.offset, memoryview(data)) and record.digest.matches(data)


def _paged_in(view: memoryview, start: int, stop: int) -> bool:
    """Page part of a mapped file in, so that nobody waits for the disk, or fails, later.

    False on a kernel before 5.14, and where the disk fails: there a copy finds out what is wrong.
    """
    page = start & -mmap.PAGESIZE
    if not isinstance(view.obj, mmap.mmap):
        return start == stop
    try:
        view.obj.madvise(_POPULATE_READ, page, stop - page)
    except OSError:
        return False
    return True
