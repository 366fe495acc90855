"""Layers: the folders of snapshots on the disk, and the mounts that show them.

::

    ROOT
    ├── lock              see `fusefs.containers.claims`
    ├── metadata.db       see `fusefs.containers.snapshotstore`
    ├── snapshots
    │   ├── 12            an ordinary snapshot: fs, and work where it is written
    │   └── new-…         one that is being made
    └── images            lazily loaded images, a folder each
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fusefs.containerd.messages import Kind, Mount

from .snapshots import Snapshot, Usage

OVERLAY_INDEX = Path("/sys/module/overlay/parameters/index")

_BLOCK = 512
"""Bytes in the unit of st_blocks."""


class Layers:
    """The folder of all snapshots."""

    def __init__(self, root: Path) -> None:
        """Make the folders that are missing."""
        self._folder = root / "snapshots"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Overlay's own default may be on, and then a lower layer cannot stand below two at once.
        self._options = ("index=off",) if OVERLAY_INDEX.exists() else ()

    def tree(self, snapshot: Snapshot) -> Path:
        """Return where an ordinary snapshot's files are."""
        return self._folder / str(snapshot.id) / "fs"

    def make(self, snapshot: Snapshot, owner: tuple[int, int] | None) -> None:
        """Make the folders of a new snapshot; *owner* is who its root directory belongs to."""
        new = Path(tempfile.mkdtemp(dir=self._folder, prefix="new-"))
        try:
            tree = new / "fs"
            tree.mkdir()
            tree.chmod(0o755)  # whatever the process' umask
            if snapshot.kind is Kind.ACTIVE:
                (new / "work").mkdir(mode=0o711)
            if owner is not None:
                os.chown(tree, *owner)
            place = self._folder / str(snapshot.id)
            # An id whose record never came to be is given again.
            shutil.rmtree(place, ignore_errors=True)
            new.rename(place)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        sync(self._folder)

    def remove(self, snapshot: Snapshot) -> None:
        """Remove a snapshot's folders."""
        shutil.rmtree(self._folder / str(snapshot.id), ignore_errors=True)

    def strays(self, known: Iterable[int]) -> list[Path]:
        """Return the folders that belong to none of the *known* snapshots."""
        names = {str(number) for number in known}
        return [path for path in self._folder.iterdir() if path.name not in names]

    def usage(self, snapshot: Snapshot) -> Usage:
        """Measure what an ordinary snapshot adds to those below it."""
        return measure(self.tree(snapshot))

    def mounts(self, snapshot: Snapshot, below: Sequence[Path]) -> tuple[Mount, ...]:
        """Return how to mount *snapshot*, which stands on the trees *below*, topmost first."""
        writes = snapshot.kind is Kind.ACTIVE
        if not below:
            return (_bind(self.tree(snapshot), "rw" if writes else "ro"),)
        if not writes and len(below) == 1:
            return (_bind(below[0], "ro"),)
        options = [*self._options]
        if writes:
            work = self._folder / str(snapshot.id) / "work"
            options += [f"workdir={work}", f"upperdir={self.tree(snapshot)}"]
        options.append("lowerdir=" + ":".join(map(os.fspath, below)))
        return (Mount("overlay", "overlay", options=tuple(options)),)


def _bind(path: Path, access: str) -> Mount:
    return Mount("bind", os.fspath(path), options=(access, "rbind"))


def measure(tree: Path) -> Usage:
    """Return the blocks and inodes below and with *tree*, each inode once."""
    seen: set[tuple[int, int]] = set()
    size = 0
    for found in _walk(tree):
        if (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            size += found.st_blocks * _BLOCK
    return Usage(size, len(seen))


def _walk(tree: Path) -> Iterator[os.stat_result]:
    """Yield what *tree* holds; what vanishes meanwhile is passed over."""
    waiting = [os.fspath(tree)]
    try:
        yield tree.lstat()
    except FileNotFoundError:
        return
    while waiting:
        try:
            with os.scandir(waiting.pop()) as scanned:
                entries = list(scanned)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield found
            if stat.S_ISDIR(found.st_mode):
                waiting.append(entry.path)


def sync(folder: Path) -> None:
    """Bring a folder's entries to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
