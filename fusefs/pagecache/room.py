"""Room: how much memory there is for pages that nobody has asked for yet.

Pages that a process pushes are charged to its control group. What the kernel can drop again, clean
pages of files, counts as room, as it does in MemAvailable.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path

SHARE = 4
"""One part in so many of what is available may be filled ahead of readers."""

_MOST = 1 << 16
"""Bytes of a file that are read: memory.stat has 3 KiB."""

_UNLIMITED = 1 << 62
"""What the older hierarchy says where there is no limit is more."""

_Names = tuple[str, str, tuple[str, str]]
"""The files of a group that tell its limit and what it uses, and what of that can be dropped."""

_V2 = ("memory.max", "memory.current", ("inactive_file", "active_file"))
_V1 = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)


def available(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that this process may fill; what cannot be read limits nothing."""
    rooms = [_machine(proc / "meminfo")]
    for folder, names in _folders(_text(proc / "self/cgroup"), groups):
        room = _group(folder, *names)
        if room is not None:
            rooms.append(room)
    return min(rooms)


def _machine(meminfo: Path) -> int:
    kib = _number(_text(meminfo), "MemAvailable:")
    return sys.maxsize if kib is None else kib << 10


@lru_cache(maxsize=1)
def _folders(membership: str, groups: Path) -> list[tuple[Path, _Names]]:
    """Return the memory control group of a process and those around it."""
    folders = []
    for line in membership.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            root, names = groups / "memory", _V1
        elif number == "0" and not controllers:
            root, names = groups, _V2
        else:
            continue
        folder = root / path.lstrip("/")
        while folder != root:
            folders.append((folder, names))
            folder = folder.parent
        folders.append((root, names))
    return folders


def _group(folder: Path, limit: str, used: str, cached: tuple[str, str]) -> int | None:
    most = _text(folder / limit).strip()
    if not most.isdigit() or int(most) >= _UNLIMITED:
        return None  # and what it uses is not looked at: that takes the kernel a millisecond
    now = _text(folder / used).strip()
    if not now.isdigit():
        return None
    facts = _text(folder / "memory.stat")
    return max(0, int(most) - int(now) + sum(_number(facts, name) or 0 for name in cached))


def _number(table: str, name: str) -> int | None:
    """Return the number in the line of *table* that begins with *name*."""
    _, _, rest = f"\n{table}".partition(f"\n{name} ")
    words = rest[:80].split(None, 1)
    return int(words[0]) if words and words[0].isdigit() else None


def _text(path: Path) -> str:
    """Return what the kernel says in one read; eight times a second, so without a file object."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, _MOST).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(fd)
