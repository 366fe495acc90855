"""Room: how much memory there is for pages that nobody has asked for yet.

Pages that a process pushes are charged to its control group. What the kernel can drop again, clean
pages of files, counts as room, as it does in MemAvailable.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

SHARE = 4
"""One part in so many of what is available may be filled ahead of readers."""

_V2 = ("memory.max", "memory.current", ("inactive_file", "active_file"))
_V1 = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)


def available(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that this process may fill; what cannot be read limits nothing."""
    rooms = [_machine(proc / "meminfo")]
    for folder in _folders(proc / "self/cgroup", groups):
        names = _V2 if (folder / _V2[0]).exists() else _V1
        room = _group(folder, *names)
        if room is not None:
            rooms.append(room)
    return min(rooms)


def _machine(meminfo: Path) -> int:
    kib = _fields(meminfo).get("MemAvailable:")
    return sys.maxsize if kib is None else kib << 10


def _folders(membership: Path, groups: Path) -> Iterator[Path]:
    """Yield the memory control group of this process and those around it."""
    for line in _text(membership).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            root = groups / "memory"
        elif number == "0" and not controllers:
            root = groups
        else:
            continue
        folder = root / path.lstrip("/")
        while folder != root:
            yield folder
            folder = folder.parent
        yield root


def _group(folder: Path, limit: str, used: str, cached: tuple[str, str]) -> int | None:
    most, now = _text(folder / limit).strip(), _text(folder / used).strip()
    if not most.isdigit() or not now.isdigit():
        return None
    facts = _fields(folder / "memory.stat")
    return max(0, int(most) - int(now) + sum(facts.get(name, 0) for name in cached))


def _fields(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) > 1 and pair[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
