"""Scratch folders: where a build works until it is done, in the folder that its result goes to.

A build holds a lock on its scratch folder for as long as it lives, however it ends. So the next
build in the same place can tell a folder that is in use from what a killed build left, and
removes the latter.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chunkstore.errors import name_place

PREFIX = ".naiad-build-"


@contextmanager
def scratch(place: Path) -> Iterator[Path]:
    """Make an empty folder in *place*, which is made too, and remove it in the end.

    Removes first what killed builds left there. Folders that were made for nothing go as well.
    """
    made = [folder for folder in (place, *place.parents) if not folder.exists()]
    place.mkdir(parents=True, exist_ok=True)
    try:
        remove_leftovers(place)
        folder, lock = _locked_folder(place)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
    except BaseException as exc:
        name_place(exc, place)  # what was written to is all below it
        with suppress(OSError):  # somebody else's by now
            for empty in made:
                empty.rmdir()
        raise


def remove_leftovers(place: Path) -> None:
    """Remove the scratch folders in *place* that no living build uses."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):
            lock = _lock(folder)
            try:
                shutil.rmtree(folder)
            finally:
                os.close(lock)


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Keep other builds from naming what they made in *place*; the lock ends with the process."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Bring the names in *folder* to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(path: Path, destination: Path) -> None:
    """Give the finished file at *path*, already on the disk, its final name, at once."""
    path.replace(destination)
    sync_folder(destination.parent)


def _locked_folder(place: Path) -> tuple[Path, int]:
    # Between making and locking another build may take the folder for a leftover; one that failed
    # may take *place* away, which it had made.
    while True:
        place.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        with suppress(OSError):
            lock = _lock(folder)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _lock(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
