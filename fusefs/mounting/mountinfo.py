"""What is mounted where, read from /proc without touching any file system.

A mount whose daemon died or hangs answers ``stat`` with an error or not at all, so nothing here
looks at a mountpoint itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of mountinfo."""

    path: Path
    device: tuple[int, int]
    """Major and minor; a FUSE connection's number is the minor."""
    kind: str
    """File system type, ``fuse.naiad`` for ours."""
    source: str

    def is_erofs_of(self, bootstrap: Path) -> bool:
        """Say whether this is an EROFS mount of *bootstrap*."""
        return self.kind == "erofs" and self.source == os.fspath(bootstrap)


def parse(table: bytes) -> Iterator[Mounted]:
    """Read the lines of *table*, oldest mount first (see proc_pid_mountinfo(5))."""
    for line in table.splitlines():
        before, _, after = line.partition(b" - ")
        fields, (kind, source, *_) = before.split(b" "), after.split(b" ")
        major, _, minor = fields[2].partition(b":")
        yield Mounted(
            Path(os.fsdecode(_unescaped(fields[4]))),
            (int(major), int(minor)),
            os.fsdecode(kind),
            os.fsdecode(_unescaped(source)),
        )


def topmost(path: Path, table: bytes | None = None) -> Mounted | None:
    """Return what is mounted exactly at *path*, the last one where several lie on another."""
    found = None
    for mounted in parse(MOUNTINFO.read_bytes() if table is None else table):
        if mounted.path == path:
            found = mounted
    return found


def _unescaped(field: bytes) -> bytes:
    return _ESCAPE.sub(lambda octal: bytes([int(octal[1], 8)]), field)


def resolved(path: Path) -> Path:
    """Return *path* as the kernel names it, without asking a mount there that may not answer.

    Raises OSError when there is no such path.
    """
    absolute = path.absolute()
    place = absolute.parent.resolve(strict=True) / absolute.name
    return place if topmost(place) else absolute.resolve(strict=True)
