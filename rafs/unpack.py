"""unpack: from an image to files on a disk.

Everything is made in a scratch folder inside the destination and moved into place in the end, so a
killed unpack leaves nothing that looks finished. Names are only ever made, never followed: files
are created exclusively, in directories that this very run made. Attributes of directories are
set last, from the deepest up, because making what is inside would change them, or be forbidden.

What only root may do is left out for others, and said once at the end.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from chunkstore import Buffer

from .bootstrap import Bootstrap
from .content import Place, Reader, data_regions, places, read_regions
from .scratch import remove_leftovers, scratch

Advance = Callable[[int], None]
"""Told how many bytes of files are done."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_FORBIDDEN = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOTSUP)
"""What the kernel says of an owner, a device or an xattr that this user may not have, also in a
user namespace that knows no such owner, or that the file system cannot hold."""


def unpack(
    image: Bootstrap, reader: Reader, destination: Path, advance: Advance | None = None
) -> list[str]:
    """Make all of *image* at *destination*, a directory that is empty or not there yet.

    Returns what had to be left out, in words. Raises FileExistsError where something is in the
    way, BadImage, ChunkstoreError, OSError; then nothing of it is left.
    """
    existed = destination.exists()
    destination.mkdir(parents=True, exist_ok=True)
    remove_leftovers(destination)
    if any(destination.iterdir()):
        raise FileExistsError(errno.EEXIST, "the destination is not empty", str(destination))
    left_out = LeftOut()
    try:
        with scratch(destination) as folder:
            tree = folder / "tree"
            tree.mkdir(0o700)
            with _opened(tree) as top:
                making = _Making(image, reader, top, left_out, advance or (lambda _: None))
                making.run()
                _move(top, destination)
        with _opened(destination) as top:
            making.finish(top)
    except BaseException:
        if not existed:
            destination.rmdir()
        raise
    return left_out.words()


class LeftOut:
    """Counts what could not be made, to say it once."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, what: str) -> None:
        """Note one of *what*."""
        self._counts[what] = self._counts.get(what, 0) + 1

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Note one of *what* if the kernel forbids it."""
        try:
            yield
        except OSError as exc:
            if exc.errno not in _FORBIDDEN:
                raise
            self.add(what)

    def words(self) -> list[str]:
        """Return what was left out."""
        return [f"left out, not permitted here: {n} {what}" for what, n in self._counts.items()]


class _Making:
    """Makes files below the directory *top*."""

    def __init__(
        self, image: Bootstrap, reader: Reader, top: int, left_out: LeftOut, advance: Advance
    ) -> None:
        self._image = image
        self._reader = reader
        self._top = top
        self._left_out = left_out
        self._advance = advance
        self._done = 0
        self._outer: list[Place] = []
        """The root and the directories in it, which cannot be moved once they are read-only."""
        self._inner: list[Place] = []
        self._absent: set[int] = set()

    def run(self) -> None:
        """Make everything, and give directories below the outer ones their attributes."""
        for place in places(self._image):
            if place.first is not None:
                self._link(place)
            else:
                _MAKE[stat.S_IFMT(place.mode)](self, place)
        for place in reversed(self._inner):
            self._finish_folder(place, self._top)

    def finish(self, top: int) -> None:
        """Give the outer directories, which are below *top* now, their attributes."""
        for place in reversed(self._outer):
            self._finish_folder(place, top)

    def folder(self, place: Place) -> None:
        """Make a directory that nobody else can enter yet."""
        if place.path:
            os.mkdir(place.path, 0o700, dir_fd=self._top)
        (self._inner if b"/" in place.path else self._outer).append(place)

    def file(self, place: Place) -> None:
        """Make a regular file with its data; what is but zeros becomes a hole."""
        descriptor = os.open(place.path, _CREATE, 0o600, dir_fd=self._top)
        try:
            os.ftruncate(descriptor, place.size)
            regions = list(data_regions(self._image, place))
            for start, data in read_regions(self._image, place, regions, self._reader):
                _write_all(descriptor, data, start)
                self._done += len(data)
                self._advance(self._done)
            self._finish(place, descriptor)
        finally:
            os.close(descriptor)

    def symlink(self, place: Place) -> None:
        """Make a symlink."""
        os.symlink(self._image.target(place.nid), place.path, dir_fd=self._top)
        self._finish_nameless(place)

    def special(self, place: Place) -> None:
        """Make a device, fifo or socket."""
        self._absent.add(place.nid)
        with self._left_out.attempt("devices"):
            os.mknod(place.path, stat.S_IFMT(place.mode) | 0o600, place.rdev, dir_fd=self._top)
            self._absent.discard(place.nid)
        if place.nid not in self._absent:
            mode = self._finish_nameless(place)
            os.chmod(place.path, mode, dir_fd=self._top)
            _set_time(place, place.path, self._top)

    def _link(self, place: Place) -> None:
        if place.nid in self._absent:
            self._left_out.add("devices")
        elif place.first is not None:
            at = {"src_dir_fd": self._top, "dst_dir_fd": self._top}
            os.link(place.first, place.path, follow_symlinks=False, **at)

    def _finish_folder(self, place: Place, top: int) -> None:
        descriptor = os.open(place.path or b".", _FOLDER, dir_fd=top)
        try:
            self._finish(place, descriptor)
        finally:
            os.close(descriptor)

    def _finish(self, place: Place, descriptor: int) -> None:
        """Set attributes of an open file, the owner first: that takes capabilities away."""
        mode = stat.S_IMODE(place.mode)
        if not self._own(place, os.fstat(descriptor), lambda: _chown(place, descriptor)):
            mode &= ~(stat.S_ISUID | stat.S_ISGID)
        for name, value in self._xattrs(place):
            with self._left_out.attempt("xattrs"):
                os.setxattr(descriptor, name, value)
        os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=(_time(place), _time(place)))

    def _finish_nameless(self, place: Place) -> int:
        """Set attributes of what cannot be opened, and return the mode that is to be set."""
        mode = stat.S_IMODE(place.mode)
        status = os.stat(place.path, dir_fd=self._top, follow_symlinks=False)
        if not self._own(place, status, lambda: _chown(place, place.path, self._top)):
            mode &= ~(stat.S_ISUID | stat.S_ISGID)
        path = b"/proc/self/fd/%d/%b" % (self._top, place.path)
        for name, value in self._xattrs(place):
            with self._left_out.attempt("xattrs"):
                os.setxattr(path, name, value, follow_symlinks=False)
        _set_time(place, place.path, self._top)
        return mode

    def _own(self, place: Place, status: os.stat_result, chown: Callable[[], None]) -> bool:
        """Set the owner; say whether it is right now, as set-id bits mean nothing otherwise."""
        if (status.st_uid, status.st_gid) == (place.uid, place.gid):
            return True
        try:
            chown()
        except OSError as exc:
            if exc.errno not in _FORBIDDEN:
                raise
            self._left_out.add("owners")
            return False
        return True

    def _xattrs(self, place: Place) -> Iterator[tuple[bytes, bytes]]:
        if self._image.has_xattrs(place.nid):
            yield from self._image.xattrs(place.nid).items()


_MAKE: dict[int, Callable[[_Making, Place], None]] = {
    stat.S_IFDIR: _Making.folder,
    stat.S_IFREG: _Making.file,
    stat.S_IFLNK: _Making.symlink,
    stat.S_IFCHR: _Making.special,
    stat.S_IFBLK: _Making.special,
    stat.S_IFIFO: _Making.special,
    stat.S_IFSOCK: _Making.special,
}


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _move(top: int, destination: Path) -> None:
    for name in os.listdir(top):
        os.rename(name, destination / name, src_dir_fd=top)


def _chown(place: Place, file: int | bytes, top: int | None = None) -> None:
    if isinstance(file, int):
        os.fchown(file, place.uid, place.gid)
    else:
        os.chown(file, place.uid, place.gid, dir_fd=top, follow_symlinks=False)


def _time(place: Place) -> int:
    return place.mtime * 1_000_000_000 + place.mtime_nsec


def _set_time(place: Place, path: bytes, top: int) -> None:
    os.utime(path, ns=(_time(place), _time(place)), dir_fd=top, follow_symlinks=False)


def _write_all(descriptor: int, data: Buffer, start: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, start)
        view, start = view[written:], start + written
