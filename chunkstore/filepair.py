"""The two files of a cached blob: opening, making, growing them, and leaving them behind.

The data file is sparse and holds decoded bytes at their decoded place; the map says what is ready
(see ``readymap``). A pair belongs together: the map names the data file's inode. What does not fit
is put away and made anew, because a state byte over another file would be a lie.

States may be ahead of the disk only in the boot that the header names. The first change after a
clean close therefore writes the boot's id, durably, before anything else; the last user's close
syncs both files and takes it out again. Whoever finds another boot's id trusts no state.

Tasks: all of it may wait for the disk, and is called from any thread.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from .direct import reopened
from .lease import FolderLock, attempt
from .readymap import CLEAN, Header, ReadyMap

logger = logging.getLogger(__name__)

SYNCED_AT_CLOSE = 256 << 20
"""Bytes written since opening up to which closing syncs. Past it the next boot verifies instead
(0.2 ms per MiB at first use), which is cheaper than an unmount that waits for the disk."""

_LONGEST_NAME = 200
"""Characters of a blob id up to which it names its files; suffixes must fit into 255."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the two files are."""

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


class FilePair:
    """A blob's two files, open."""

    map: ReadyMap

    def __init__(self, place: Place, lock: FolderLock, boot: bytes) -> None:
        self.place = place
        self.lock = lock
        """Of the folder: no claim, no opening and no removal goes on while it is held."""
        self._boot = boot
        self.data_fd = self._map_fd = -1
        self._direct_fd: int | None = None
        self._reopening = threading.Lock()
        self._fresh = False
        self.soiled = False
        """The header names this boot, on the disk."""
        self.written = 0
        """Bytes put into the data file since it was opened."""
        self.length = 0
        """Bytes of the data file that this process knows of."""
        self.view: memoryview | None = None
        """The data file mapped; None where the address space has no room for it."""

    def open(self, chunk_count: int, size: int) -> None:
        """Open or make the files; the folder's lock is held.

        Raises OSError when that is impossible now (ENOSPC, EMFILE, EFBIG).
        """
        with self._closing_on_error():
            self._begin(self._found() or self._made(chunk_count, size), chunk_count, size)

    def open_existing(self) -> bool:
        """Open the files if they are there and whole; the folder's lock is held."""
        with self._closing_on_error():
            header = self._found()
            if header is not None:
                self._begin(header, header.chunk_count, header.size)
        return header is not None

    def grow(self, chunk_count: int, size: int) -> None:
        """Make room for more slots or bytes; raises OSError."""
        if chunk_count > self.map.chunk_count or size > self.length:
            with self.lock:
                self._allot(self._header(), chunk_count, size)

    def soil(self) -> None:
        """Say in the header that states may be ahead of the disk, durably, before they are."""
        if self.soiled:
            return
        if not self._fresh:
            with self.lock:
                header = self._header()
                if header.boot == CLEAN:
                    self.map.store(replace(header, boot=self._boot))
            os.fdatasync(self._map_fd)
        self.soiled = True

    @property
    def direct_fd(self) -> int:
        """The data file, open for reads past the page cache; -1 where there are none."""
        with self._reopening:
            if self._direct_fd is None:
                self._direct_fd = reopened(self.data_fd)
            return self._direct_fd

    def touch(self) -> None:
        """Note the use of the whole blob, which eviction of unused blobs goes by."""
        os.utime(self._map_fd)

    def close(self) -> None:
        """Close the files; the last user of a little-written blob leaves it synced and clean."""
        try:
            if self.soiled and self.written <= SYNCED_AT_CLOSE and self._alone():
                self._sync()
                with self.lock:
                    self._leave_clean()
        except OSError as exc:  # the next boot verifies, then
            logger.warning("not synced blob=%s reason=%s", self.place.name, exc.strerror)
        finally:
            self._close_files()

    def _begin(self, header: Header, chunk_count: int, size: int) -> None:
        if header.boot not in (CLEAN, self._boot):
            self.map.distrust(header.chunk_count)
            header = replace(header, boot=self._boot)
            self.map.store(header)
        self._allot(header, chunk_count, size)
        fcntl.flock(self._map_fd, fcntl.LOCK_SH)

    def _found(self) -> Header | None:
        """Open the pair if it is whole and ours; otherwise put it away."""
        try:
            self.data_fd = os.open(self.place.data, os.O_RDWR | os.O_CLOEXEC)
            self._map_fd = os.open(self.place.map, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            self._put_away()
            return None
        self.map = ReadyMap(self._map_fd)
        header, data = self.map.load(), os.fstat(self.data_fd)
        if (
            header is None
            or header.inode != data.st_ino
            or header.size > data.st_size
            or header.name != self.place.digest
        ):
            logger.warning("damaged or foreign map set aside blob=%s", self.place.name)
            self._put_away()
            return None
        return header

    def _made(self, chunk_count: int, size: int) -> Header:
        """Make both files, the map last and whole under its name."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        unfinished = self.place.map.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        self.data_fd = os.open(self.place.data, flags, 0o600)
        try:
            os.ftruncate(self.data_fd, size)
            self._map_fd = os.open(unfinished, flags, 0o600)
            self.map = ReadyMap(self._map_fd)
            inode = os.fstat(self.data_fd).st_ino
            header = Header(chunk_count, size, inode, self._boot, self.place.digest)
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
            if room > os.fstat(self.data_fd).st_size:  # nothing ever truncates
                os.ftruncate(self.data_fd, room)
            self.map.store(replace(header, chunk_count=count, size=room))
        if count > self.map.chunk_count:
            self.map.map(count)
        if size > self.length or self.view is None:
            self.length = max(self.length, size)
            self.view = _mapped(self.data_fd, self.length)

    def _alone(self) -> bool:
        """Say whether nobody else has the files open, for now."""
        with self.lock:
            alone = attempt(self._map_fd, fcntl.LOCK_EX)
            fcntl.flock(self._map_fd, fcntl.LOCK_SH)
        return alone

    def _leave_clean(self) -> None:
        """Take the boot id out of the header if nobody else has the files open."""
        if attempt(self._map_fd, fcntl.LOCK_EX):
            self._sync()  # what others wrote since; mostly nothing, as the folder waits for it
            self.map.store(replace(self._header(), boot=CLEAN))
            os.fdatasync(self._map_fd)

    def _sync(self) -> None:
        os.fdatasync(self.data_fd)
        os.fdatasync(self._map_fd)

    def _header(self) -> Header:
        header = self.map.load()
        if header is None:
            raise OSError(errno.EIO, f"the map of {self.place.name} was damaged while in use")
        return header

    def _put_away(self) -> None:
        """Free the names: the map is kept for a look, bytes without a map are no use."""
        self._close_files()
        if self.place.map.exists():
            self.place.map.replace(self.place.map.with_suffix(".damaged"))
        self.place.data.unlink(missing_ok=True)

    @contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._close_files()
            raise

    def _close_files(self) -> None:
        if self._direct_fd is not None and self._direct_fd >= 0:
            os.close(self._direct_fd)
        self._direct_fd = None
        for fd in (self.data_fd, self._map_fd):
            if fd >= 0:
                fcntl.flock(fd, fcntl.LOCK_UN)  # mmap keeps a duplicate, and the lock with it
                os.close(fd)
        self.data_fd = self._map_fd = -1


def _mapped(fd: int, length: int) -> memoryview | None:
    """Map a data file for reading; None where that is impossible."""
    if length == 0:
        return memoryview(b"")
    try:
        mapped = mmap.mmap(fd, length, prot=mmap.PROT_READ)
    except (OSError, OverflowError):
        return None
    # Whoever reads says what. The kernel would read as much around each page as the disk's
    # read-ahead is, which may be 8 MiB.
    mapped.madvise(mmap.MADV_RANDOM)
    return memoryview(mapped)
