"""The blob cache: a folder with one cache file per blob, shared by the processes of a node.

::

    ROOT/                       0700, owned by the effective user
        lock                    held for microseconds: claims, opening, removing
        evicting                held by the one process that makes room
        blobs/NAME.data, .map   decoded bytes and ready map of a blob
        apart/OWNER/NAME.…      the same for chunks of one image that contradict the shared files

NAME is the blob id. OWNER is the digest of an image's bootstrap. A cache file is opened once per
process, however many images use it, and its map's file is flocked shared while it is open: that is
how others know that the blob is in use.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from .cachefile import CacheFile
from .chunk import Blob
from .digest import Digest
from .errors import CacheUnusable
from .filepair import Place
from .flights import Flights
from .lease import FolderLock

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class BlobCache:
    """The cache folder as one process has it open.

    Tasks: any thread may call any method; the table of open files has its own mutex.
    """

    def __init__(
        self,
        root: Path,
        *,
        limit: int | None = None,
        boot: bytes | None = None,
    ) -> None:
        """Use *root*, making it if it is not there; raises CacheUnusable.

        *limit* is what all blobs together may take on the disk, in bytes. *boot* names the boot of
        the machine, 16 bytes; the kernel is asked by default.
        """
        self.root = root
        self.limit = limit
        self._boot = boot or boot_id()
        _claim_folder(root)
        self.lock = FolderLock(root / "lock")
        self.evicting = FolderLock(root / "evicting")
        self.flights = Flights()
        self._table = threading.Lock()
        self._open: dict[Place, tuple[CacheFile, int]] = {}

    def open(self, blob: Blob, owner: Digest | None = None) -> CacheFile:
        """Open *blob*'s shared cache file, or the one apart of image *owner*.

        Each call is balanced by ``close_file``. Raises OSError when there is no room for it.
        """
        place = self.place(blob.id, owner)
        with self._table:
            file, users = self._open.get(place, (None, 0))
            if file is None:
                file = CacheFile(place, self.lock, self._boot)
                with self.lock:
                    place.folder.mkdir(0o700, exist_ok=True)
                    file.open(blob)
                file.touch()
            else:
                file.grow(blob)
            self._open[place] = (file, users + 1)
            return file

    def reopen(self, place: Place) -> CacheFile | None:
        """Open a blob that is in the folder; None where it is not, or is damaged."""
        with self._table:
            file, users = self._open.get(place, (None, 0))
            if file is None:
                file = CacheFile(place, self.lock, self._boot)
                with self.lock:
                    if not file.open_existing():
                        return None
            self._open[place] = (file, users + 1)
            return file

    def close_file(self, file: CacheFile) -> None:
        """Give back what ``open`` returned; the last one closes it, which may wait for the disk."""
        with self._table:
            known, users = self._open[file.place]
            if users > 1:
                self._open[file.place] = (known, users - 1)
                return
            del self._open[file.place]
        file.close()

    def place(self, blob_id: str, owner: Digest | None = None) -> Place:
        """Return where a blob's files are, or would be."""
        folder = self.root / "blobs" if owner is None else self.root / "apart" / owner.hex
        return Place.of(folder, blob_id)

    def places(self) -> Iterator[Place]:
        """Yield every blob in the folder, shared ones first."""
        for folder in (self.root / "blobs", *sorted((self.root / "apart").glob("*"))):
            for path in sorted(folder.glob("*.map")):
                yield Place(folder, path.stem)

    def open_files(self) -> list[CacheFile]:
        """Return the files this process has open."""
        with self._table:
            return [file for file, _ in self._open.values()]

    def close(self) -> None:
        """Close everything that is still open."""
        for file in self.open_files():
            with self._table:
                del self._open[file.place]
            file.close()
        self.lock.close()
        self.evicting.close()

    def __repr__(self) -> str:
        return f"BlobCache({str(self.root)!r})"


def boot_id() -> bytes:
    """Return the kernel's name for this boot, 16 bytes."""
    return uuid.UUID(_BOOT_ID.read_text().strip()).bytes


def _claim_folder(root: Path) -> None:
    """Make *root* with its folders, or see that it is ours alone; raises CacheUnusable."""
    try:
        root.mkdir(0o700, parents=True, exist_ok=True)
        facts = root.stat()
        if facts.st_uid != os.geteuid():
            raise CacheUnusable(f"cache folder {root} belongs to user {facts.st_uid}")
        if facts.st_mode & 0o077:
            raise CacheUnusable(f"cache folder {root} is open to others: it must have mode 0700")
        (root / "blobs").mkdir(0o700, exist_ok=True)
        (root / "apart").mkdir(0o700, exist_ok=True)
    except OSError as exc:
        raise CacheUnusable(f"cache folder {root}: {exc.strerror}") from exc
