"""Check: what is wrong with a bootstrap, found by walking everything once.

A bootstrap without findings is a tree: each directory under one name, each name once and in order,
each byte of each file in a chunk or a hole, and no two structures in one place. That is strict
enough for the kernel's EROFS to mount it, which trusts more than the readers here do. Memory is a
small fraction of the bootstrap's size, and time in proportion to it, however hostile it is.
"""

from __future__ import annotations

import stat
from array import array
from collections.abc import Iterator
from typing import Protocol

from .bootstrap import Bootstrap
from .errors import BadImage
from .finding import Finding, Report
from .inode import Kind
from .v5 import V5
from .v5_check import V5Check
from .v6 import V6
from .v6_bulk import is_sound
from .v6_check import V6Check

__all__ = ["Finding", "findings", "searched"]

_DIRECTORY, _BROKEN = 1 << 31, 1 << 30
"""Instead of a count of names: a directory, which has one; an inode that cannot be read."""

_TYPE = 0xF000
"""The type bits of a mode."""

_KINDS = {kind << 12: Kind.of(kind << 12).value for kind in (1, 2, 4, 6, 8, 10, 12)}
"""Type bits to the numbers that directories say."""


class FormatCheck(Protocol):
    """What a version of the format checks of its own."""

    limit: int
    """One more than the greatest nid that can be."""

    def tables(self) -> Iterator[None]:
        """Check what is there once, pausing now and then."""
        ...

    def inode(self, nid: int) -> tuple[int, int]:
        """Check an inode that was not met before, but for a directory's names.

        Returns its mode and links.
        """
        ...

    def names(self, nid: int, parent: int) -> Iterator[tuple[bytes, int, int]]:
        """Check a directory's names and yield each but the dots with nid and kind's number."""
        ...

    def place(self, nid: int) -> int:
        """Return the byte where an inode starts."""
        ...


def findings(bootstrap: Bootstrap) -> Iterator[Finding]:
    """Yield all that is wrong with *bootstrap*, as it is found."""
    if isinstance(bootstrap.metadata, V6) and is_sound(bootstrap.metadata):
        return
    yield from searched(bootstrap)


def searched(bootstrap: Bootstrap) -> Iterator[Finding]:
    """Yield what ``findings`` does, each inode looked at by itself."""
    report = Report()
    check = _format_check(bootstrap, report)
    for _ in check.tables():
        yield from report.take()
    yield from report.take()
    yield from _Walk(bootstrap, check, report).run()


def _format_check(bootstrap: Bootstrap, report: Report) -> FormatCheck:
    metadata = bootstrap.metadata
    if isinstance(metadata, V6):
        return V6Check(metadata, report)
    assert isinstance(metadata, V5)
    return V5Check(metadata, report)


class _Walk:
    """A walk over the tree, each directory once."""

    def __init__(self, bootstrap: Bootstrap, check: FormatCheck, report: Report) -> None:
        self._image = bootstrap
        self._check = check
        self._report = report
        self._names = array("I", bytes(4 * check.limit))
        """How many names each nid has, by nid."""
        self._links = array("I", bytes(4 * check.limit))
        """How many it says it has."""
        self._pending = array("Q")
        """Directories still to be listed, each behind its parent."""

    def run(self) -> Iterator[Finding]:
        """Yield the findings."""
        root = self._image.root
        self._add(root, root)
        while self._pending:
            nid, parent = self._pending.pop(), self._pending.pop()
            yield from self._directory(nid, parent)
        yield from self._report.take()
        yield from self._miscounted()
        for nid in self._image.prefetch:
            if not 0 <= nid < self._check.limit or not self._names[nid]:
                yield Finding("prefetch table", 0, f"inode {nid} has no name")

    def _directory(self, nid: int, parent: int) -> Iterator[Finding]:
        below = 0
        try:
            for name, child, kind in self._check.names(nid, parent):
                below += self._name(nid, name, child, kind)
                if self._report:
                    yield from self._report.take()
            links = self._links[nid]
            if links != below + 2:
                self._found(nid, f"{links} links, and {below} directories in it")
        except BadImage as exc:
            self._report.caught(exc)
        yield from self._report.take()

    def _name(self, directory: int, name: bytes, nid: int, kind: int) -> bool:
        """Note one name of *directory*; say whether it is a directory's."""
        if not 0 <= nid < self._check.limit:
            self._found(directory, f"{name!r} is inode {nid}, which cannot be")
            return False
        names = self._names[nid]
        if names & _DIRECTORY:
            self._found(nid, f"a directory that {name!r} in inode {directory} names once more")
            return True
        if not names:
            mode = self._add(nid, directory)
        else:
            self._names[nid] += not names & _BROKEN
            mode = 0 if names & _BROKEN else self._image.attributes(nid)[0]
        if not mode:
            return kind == Kind.DIRECTORY.value
        if _KINDS.get(mode & _TYPE) != kind:
            self._found(directory, f"{name!r} is of kind {kind}, inode {nid} has mode {mode:#o}")
        return mode & _TYPE == stat.S_IFDIR

    def _add(self, nid: int, parent: int) -> int:
        """Check an inode that is met for the first time; return its mode, 0 if it is broken."""
        try:
            mode, links = self._check.inode(nid)
        except BadImage as exc:
            self._report.caught(exc)
            self._names[nid] = _BROKEN
            return 0
        self._links[nid] = min(links, 0xFFFF_FFFF)
        if mode & _TYPE == stat.S_IFDIR:
            self._names[nid] = _DIRECTORY
            self._pending.extend((parent, nid))
        else:
            self._names[nid] = 1
        return mode

    def _miscounted(self) -> Iterator[Finding]:
        for nid, (names, links) in enumerate(zip(self._names, self._links, strict=True)):
            if names != links and 0 < names < _BROKEN:
                yield self._finding(nid, f"{links} links, and {names} names")

    def _found(self, nid: int, what: str) -> None:
        self._report.add(f"inode {nid}", self._check.place(nid), what)

    def _finding(self, nid: int, what: str) -> Finding:
        return Finding(f"inode {nid}", self._check.place(nid), what)
