"""Which extended attributes an image can hold, and how they are read from files."""

from __future__ import annotations

import errno
import os

from rafs.erofs import prefix_of

Found = dict[bytes, bytes]
"""Values by full name."""

_ABSENT = (errno.ENOTSUP, errno.ENODATA)


def is_storable(name: bytes) -> bool:
    """Say whether EROFS has a number for the namespace of *name*."""
    return prefix_of(name) is not None


class Attributes:
    """Reads xattrs from files, and remembers names that had to stay behind.

    Several threads use one at once: all it changes is a set that only grows.
    """

    def __init__(self) -> None:
        self.left: set[bytes] = set()
        """Names that no image can hold."""

    @property
    def warnings(self) -> list[str]:
        """What was left out, in words."""
        return [left_out(name) for name in sorted(self.left)]

    def of(self, descriptor: int) -> Found:
        """Return the xattrs of an open file; raises OSError."""
        try:
            names = os.listxattr(descriptor)
        except OSError as exc:
            names = _none(exc)
        return self._values(descriptor, names, follow=True) if names else {}

    def at(self, path: bytes) -> Found:
        """Return the xattrs of the file at *path*, which may be a symlink; raises OSError."""
        try:
            names = os.listxattr(path, follow_symlinks=False)
        except OSError as exc:
            names = _none(exc)
        return self._values(path, names, follow=False) if names else {}

    def _values(self, file: int | bytes, names: list[str], *, follow: bool) -> Found:
        found = {}
        for text in names:
            name = os.fsencode(text)
            if not is_storable(name):
                self.left.add(name)
                continue
            try:
                found[name] = os.getxattr(file, name, follow_symlinks=follow)
            except OSError as exc:
                _none(exc)  # some file systems list what nobody may read
        return found


def left_out(name: bytes) -> str:
    """Return the word about a name that no image can hold."""
    return f"left out, no place for it in an image: xattr {name.decode('utf-8', 'replace')}"


def _none(exc: OSError) -> list[str]:
    if exc.errno not in _ABSENT:
        raise exc
    return []
