"""Operations: the kernel's requests, answered from the vfs.

Nothing here is kept between requests but caches of what never changes, so a daemon that takes
another's place answers the same. Every handler begins by counting, which the supervisor reads, and
runs inside the translation of errors. An image is immutable: the kernel may keep names, attributes
and data as long as it likes, and "not there" as well. Only the names of images in a catalogue come
and go: these it must ask for each time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, ReaddirToken, RequestContext, StatvfsData

from chunkstore import Buffer
from rafs import RafsError

from .diskahead import DiskAhead
from .mounting.vitals import Vitals
from .pagecache.push import PageCache
from .translation import Translation
from .vfs import Vfs

FOREVER = 365 * 86400.0
"""Seconds that the kernel keeps names and attributes."""

_KEPT = 1 << 16
"""Entries kept ready-made, at 200 bytes each; when they are full, they start anew."""

_DOT, _DOTDOT = 1, 2
_DOTS = 2
"""What is added to an image's cookies: ``.`` and ``..`` come first."""

_BLOCK = 4096
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
_NS = 10**9


class Operations(pyfuse3.Operations):
    """The handlers of one session."""

    enable_writeback_cache = False

    def __init__(
        self,
        vfs: Vfs,
        pagecache: PageCache,
        vitals: Vitals,
        translation: Translation,
        bare: Callable[[], bool],
        take_device: Callable[[], None],
    ) -> None:
        """Ask *bare* whether it is certain that no file has extended attributes.

        *take_device* is called while INIT is handled, before its reply is written.
        """
        super().__init__()
        self._vfs = vfs
        self.disk = DiskAhead(vfs)
        """What reads of files that are here and not in memory go through; to be run."""
        self._pagecache = pagecache
        self._count = vitals.words
        self._translated = translation
        self._bare = bare
        self._take_device = take_device
        self._entries: dict[int, EntryAttributes] = {}
        vfs.on_removal(self._entries.clear)
        self._absent = EntryAttributes()
        self._absent.st_ino = 0
        self._absent.entry_timeout = FOREVER

    def init(self) -> None:
        """Put the real device in place of the socket that INIT came from."""
        self._take_device()

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Find a name; that there is none is an answer that the kernel keeps, too."""
        self._count[0] += 1
        with self._translated:
            node = self._vfs.lookup(parent_inode, name)
            if not self._vfs.lasts(parent_inode):
                return self._passing(node)
            return self._absent if node is None else self._entry(node)

    # Not a coroutine as its base is: pyfuse3 awaits what it gets unless that is None.
    def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:  # type: ignore[override]
        """Keep nothing, forget nothing."""

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        """Return what ``stat`` shows."""
        self._count[0] += 1
        with self._translated:
            return self._entry(inode)

    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        """Return a symlink's target."""
        self._count[0] += 1
        with self._translated:
            return self._vfs.target(inode)

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open for reading; the handle is the node."""
        self._count[0] += 1
        if flags & _WRITING:
            raise FUSEError(errno.EROFS)
        known = self._entries.get(inode)
        if known is not None:
            with suppress(RafsError):  # whoever reads it is told
                self._vfs.foresee(inode, known.st_size)
        self._pagecache.opened(inode)
        return FileInfo(fh=inode, keep_cache=True)

    # pyfuse3 takes any object that has a buffer, whatever its annotation says.
    async def read(self, fh: int, off: int, size: int) -> Buffer:  # type: ignore[override]
        """Return bytes, at once where they are here; between the look and the reply is no await."""
        self._count[0] += 1
        with self._translated:
            self._vfs.hasten(fh, off, size)
            self._pagecache.read(fh, off, size)
            data = None if self.disk.expects(fh, off) else self._vfs.look(fh, off, size)
            if data is None:
                data = await self.disk.read(fh, off, size, alone=self._pagecache.pushes_to(fh))
            if not off:
                self._pagecache.began(fh, data)
            return data

    async def flush(self, fh: int) -> None:
        """Ask the kernel to stop asking."""
        raise FUSEError(errno.ENOSYS)

    async def release(self, fh: int) -> None:
        """Close; there is nothing to close, but nothing more to bring ahead either."""
        self._pagecache.closed(fh)

    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        """Open a directory; the handle is the node."""
        self._count[0] += 1
        return inode

    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """List names with their attributes, as many as fit."""
        self._count[0] += 1
        with self._translated:
            self._fill(fh, start_id, token)

    def _fill(self, node: int, start: int, token: ReaddirToken) -> None:
        reply, kept, entry = pyfuse3.readdir_reply, self._entries, self._entry
        if start < _DOT and not reply(token, b".", entry(node), _DOT):
            return
        if start < _DOTDOT and not reply(token, b"..", entry(self._vfs.parent(node)), _DOTDOT):
            return
        lasts = self._vfs.lasts(node)
        for name, child, cookie in self._vfs.listing(node, max(0, start - _DOTS)):
            attributes = (kept.get(child) or entry(child)) if lasts else self._passing(child)
            if not reply(token, name, attributes, cookie + _DOTS):
                return

    async def releasedir(self, fh: int) -> None:
        """Close a directory; there is nothing to close."""

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """Return the images' size, all of it used."""
        self._count[0] += 1
        stats = StatvfsData()
        stats.f_bsize = stats.f_frsize = _BLOCK
        stats.f_blocks = -(-self._vfs.size // _BLOCK)
        stats.f_bfree = stats.f_bavail = 0
        stats.f_files = self._vfs.inode_count
        stats.f_ffree = stats.f_favail = 0
        stats.f_namemax = 255
        return stats

    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        """Return one extended attribute.

        ENOSYS where no file has any makes the kernel stop asking; ``ls -l`` asks for every file.
        """
        self._count[0] += 1
        if self._bare():
            raise FUSEError(errno.ENOSYS)
        with self._translated:
            value = self._vfs.xattrs(inode).get(name)
        if value is None:
            raise FUSEError(errno.ENODATA)
        return value

    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        """Return the names of all extended attributes."""
        self._count[0] += 1
        with self._translated:
            return list(self._vfs.xattrs(inode))

    def _passing(self, node: int | None) -> EntryAttributes:
        """Return what the kernel is told of a name that may come or go, and may not keep."""
        if node is None:
            raise FUSEError(errno.ENOENT)
        entry = self._made(node)
        entry.entry_timeout = 0.0
        return entry

    def _entry(self, node: int) -> EntryAttributes:
        """Return what the kernel is told of *node*; shared, so nobody may change it."""
        kept = self._entries.get(node)
        if kept is not None:
            return kept
        entry = self._made(node)
        if self._vfs.lasts(node):
            if len(self._entries) >= _KEPT:
                self._entries.clear()
            self._entries[node] = entry
        return entry

    def _made(self, node: int) -> EntryAttributes:
        mode, nlink, uid, gid, rdev, size, mtime, nsec, _ = self._vfs.attributes(node)
        entry = EntryAttributes()
        entry.st_ino = node
        entry.entry_timeout = FOREVER
        entry.attr_timeout = FOREVER if self._vfs.lasts(node) else 0.0
        entry.st_mode = mode
        entry.st_nlink = nlink
        entry.st_uid = uid
        entry.st_gid = gid
        entry.st_rdev = rdev
        entry.st_size = size
        entry.st_blocks = (size + 511) >> 9
        entry.st_mtime_ns = entry.st_ctime_ns = entry.st_atime_ns = mtime * _NS + nsec
        return entry


async def _read_only(*_: object) -> None:
    """Answer a request to change something."""
    raise FUSEError(errno.EROFS)


_CHANGES = (
    *("create", "link", "mkdir", "mknod", "removexattr", "rename", "rmdir"),
    *("setattr", "setxattr", "symlink", "unlink", "write"),
)
for _name in _CHANGES:
    setattr(Operations, _name, _read_only)
