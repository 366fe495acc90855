"""A tar archive as the source of an image: a file, or a stream that comes but once."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from rafs.chunking import unpacked_estimate
from rafs.errors import BadSource
from rafs.packer import Packer

from .archive import Archive
from .layer import Reading
from .source import Harvest
from .streams import GZIP, ZSTD, Stream, blocks_of, plain, read_ahead

STDIN = "standard input"


class TarSource:
    """The archive at *path*, or on standard input; plain, gzip or zstd, as its first bytes say.

    Names that begin with ``.wh.`` are names here: an archive is a tree, not a layer.
    """

    def __init__(self, path: Path | None) -> None:
        self.place: Path | None = None
        self._path = path
        self._what = str(path) if path else STDIN

    def prepare(self) -> int | None:
        """Return the bytes in the archive, from its size; None for a pipe."""
        try:
            with closing(self._open()) as file:
                status = os.fstat(file.fileno())
                if stat.S_ISDIR(status.st_mode):
                    raise BadSource(f"{self._what} is a directory")
                if stat.S_ISCHR(status.st_mode):
                    raise BadSource(f"{self._what} is a device, not an archive")
                if not stat.S_ISREG(status.st_mode):
                    return None
                start = os.pread(file.fileno(), len(ZSTD), 0)
        except OSError as exc:
            raise BadSource(f"{self._what}: {exc.strerror}") from exc
        packed = start.startswith((GZIP, ZSTD))
        return unpacked_estimate(status.st_size) if packed else status.st_size

    def read(self, packer: Packer) -> Harvest:
        """Pack what comes; raises BadSource."""
        reading = Reading(packer, whiteouts=False)
        try:
            with (
                closing(self._open()) as file,
                read_ahead(plain(blocks_of(file), self._what)) as blocks,
            ):
                archive = Archive(Stream(blocks, self._what))
                reading.add(archive)
                archive.stream.drain()
        except OSError as exc:
            raise BadSource(f"{self._what}: {exc.strerror}") from exc
        if not archive.ended:
            raise BadSource(f"{self._what} ends without the mark of an end: it may be cut")
        return Harvest(reading.tree(), list(reading.warnings))

    def _open(self) -> BinaryIO:
        if self._path is not None:
            return self._path.open("rb")
        return open(0, "rb", closefd=False)  # standard input has no path
