"""Unpack: an image's tree as files in a directory.

Everything is made through descriptors of directories that the unpacking itself made, so no name in
an image leads out of the destination. A directory gets its attributes when all in it is done.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .bootstrap import Bootstrap
from .errors import BadImage, BadSource
from .filedata import FileData
from .inode import Inode
from .verify import ReadStored

Progress = Callable[[int], None]
"""Told the bytes of files that were written since it was last told."""

PREFIX = ".naiad-unpack-"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FORBIDDEN = (errno.EPERM, errno.EACCES, errno.ENOTSUP)


@dataclass(slots=True)
class Unpacked:
    """What came of it."""

    files: int = 0
    size: int = 0
    """Bytes of regular files."""
    skipped: Counter[str] = field(default_factory=Counter)
    """How often something could not be restored, by what it was."""


@dataclass(frozen=True, slots=True)
class _Folder:
    inode: Inode
    path: bytes
    descriptor: int
    names: Iterator[tuple[bytes, int, int]]


def unpack(
    bootstrap: Bootstrap, read: ReadStored, destination: Path, progress: Progress | None = None
) -> Unpacked:
    """Write the whole tree to *destination*, which must not exist or be an empty directory.

    It appears under its name when it is complete. Raises BadSource if the destination will not do,
    BadImage, ChunkstoreError, OSError.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise BadSource(f"{destination}: exists and is no empty directory")
    destination.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=PREFIX, dir=destination.parent))
    try:
        tree = scratch / "tree"
        tree.mkdir(mode=0o700)
        done = _Unpacking(bootstrap, read, progress or _quiet).run(tree)
        tree.rename(destination)
    finally:
        _remove(scratch)
    return done


class _Unpacking:
    def __init__(self, bootstrap: Bootstrap, read: ReadStored, progress: Progress) -> None:
        self._bootstrap = bootstrap
        self._data = FileData(bootstrap, read)
        self._progress = progress
        self._done = Unpacked()
        self._root = -1
        self._linked: dict[int, bytes] = {}
        self._entered: set[int] = set()
        self._privileged = os.geteuid() == 0

    def run(self, top: Path) -> Unpacked:
        self._root = os.open(top, _DIRECTORY)
        stack = [self._enter(self._bootstrap.inode(self._bootstrap.root), b"", os.dup(self._root))]
        try:
            while stack:
                below = self._next(stack[-1])
                if below is not None:
                    stack.append(below)
                else:
                    folder = stack.pop()
                    try:
                        self._adorn(folder.inode, folder.descriptor)
                    finally:
                        os.close(folder.descriptor)
        finally:
            for folder in stack:
                os.close(folder.descriptor)
            os.close(self._root)
        return self._done

    def _enter(self, inode: Inode, path: bytes, descriptor: int) -> _Folder:
        if inode.nid in self._entered:
            os.close(descriptor)
            raise BadImage(f"directory inode {inode.nid} is in the tree twice, at {path!r}")
        self._entered.add(inode.nid)
        return _Folder(inode, path, descriptor, self._bootstrap.scan(inode.nid, 0))

    def _next(self, folder: _Folder) -> _Folder | None:
        """Make the folder's entries up to its next directory, which is returned; None: no more."""
        for name, nid, _ in folder.names:
            if b"/" in name or name in (b"", b".", b".."):
                raise BadImage(f"directory inode {folder.inode.nid} has a name {name!r}")
            inode = self._bootstrap.inode(nid)
            path = folder.path + b"/" + name if folder.path else name
            self._done.files += 1
            if stat.S_ISDIR(inode.mode):
                os.mkdir(name, 0o700, dir_fd=folder.descriptor)
                below = os.open(name, _DIRECTORY, dir_fd=folder.descriptor)
                return self._enter(inode, path, below)
            self._make(inode, name, path, folder.descriptor)
        return None

    def _make(self, inode: Inode, name: bytes, path: bytes, folder: int) -> None:
        first = self._linked.get(inode.nid)
        if first is not None:
            os.link(first, name, src_dir_fd=self._root, dst_dir_fd=folder, follow_symlinks=False)
            return
        if inode.nlink > 1:
            self._linked[inode.nid] = path
        if stat.S_ISREG(inode.mode):
            self._make_file(inode, name, folder)
        elif stat.S_ISLNK(inode.mode):
            os.symlink(self._bootstrap.target(inode.nid), name, dir_fd=folder)
            self._adorn_special(inode, name, folder)
        elif self._make_special(inode, name, folder):
            self._adorn_special(inode, name, folder)

    def _make_file(self, inode: Inode, name: bytes, folder: int) -> None:
        descriptor = os.open(name, _NEW, 0o600, dir_fd=folder)
        try:
            for piece in self._data.pieces(inode.nid, inode.size):
                if piece.chunk is not None:
                    _write_all(descriptor, self._data.data(piece), piece.start)
                self._progress(piece.size)
            os.ftruncate(descriptor, inode.size)
            self._done.size += inode.size
            self._adorn(inode, descriptor)
        finally:
            os.close(descriptor)

    def _make_special(self, inode: Inode, name: bytes, folder: int) -> bool:
        try:
            os.mknod(name, stat.S_IFMT(inode.mode) | 0o600, inode.rdev, dir_fd=folder)
        except OSError as exc:
            self._forgive(exc, "devices")
            return False
        return True

    def _adorn(self, inode: Inode, descriptor: int) -> None:
        """Give an open file or directory its attributes: owner first, as it takes others away."""
        if self._privileged:
            os.chown(descriptor, inode.uid, inode.gid)
        for name, value in self._xattrs(inode):
            try:
                os.setxattr(descriptor, name, value)
            except OSError as exc:
                self._forgive(exc, f"xattr {name.decode('utf-8', 'replace')}")
        os.chmod(descriptor, stat.S_IMODE(inode.mode))
        os.utime(descriptor, ns=_times(inode))

    def _adorn_special(self, inode: Inode, name: bytes, folder: int) -> None:
        path = b"/proc/self/fd/%d/%b" % (folder, name)
        if self._privileged:
            os.chown(path, inode.uid, inode.gid, follow_symlinks=False)
        for attribute, value in self._xattrs(inode):
            try:
                os.setxattr(path, attribute, value, follow_symlinks=False)
            except OSError as exc:
                self._forgive(exc, f"xattr {attribute.decode('utf-8', 'replace')}")
        if not stat.S_ISLNK(inode.mode):
            Path(os.fsdecode(path)).chmod(stat.S_IMODE(inode.mode))
        os.utime(path, ns=_times(inode), follow_symlinks=False)

    def _xattrs(self, inode: Inode) -> list[tuple[bytes, bytes]]:
        if not self._bootstrap.has_xattrs(inode.nid):
            return []
        return list(self._bootstrap.xattrs(inode.nid).items())

    def _forgive(self, exc: OSError, what: str) -> None:
        # Not everybody may make devices or set privileged attributes; what is left out is told.
        if exc.errno not in _FORBIDDEN:
            raise exc
        self._done.skipped[what] += 1


def _times(inode: Inode) -> tuple[int, int]:
    moment = inode.mtime * 10**9 + inode.mtime_nsec
    return moment, moment


def _write_all(descriptor: int, data: memoryview | bytes | bytearray, start: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, start)
        view, start = view[count:], start + count


def _remove(scratch: Path) -> None:
    # A killed or failed unpacking may leave directories that nobody may write to.
    def unlock(_: object, path: str, __: object) -> None:
        Path(path).parent.chmod(0o700)

    if (scratch / "tree").exists():
        shutil.rmtree(scratch / "tree", onerror=unlock)
    shutil.rmtree(scratch, ignore_errors=True)


def _quiet(_: int) -> None:
    pass
