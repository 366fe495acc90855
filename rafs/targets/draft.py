"""Draft and Target: an image whose files are finished, and who gives them their final names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from chunkstore import Algorithm, Digest
from rafs.v6_tables import BlobEntry

Json = dict[str, object]
"""A JSON object as ``json`` reads it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A finished file, already on the disk."""

    path: Path
    digest: Digest
    """SHA-256 of the whole file."""
    size: int

    @classmethod
    def write(cls, path: Path, fill: Callable[[BinaryIO], object]) -> Piece:
        """Make the file at *path*, have *fill* write it, and bring it to the disk."""
        with path.open("xb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        return cls(path, Digest(Algorithm.SHA256, digest), path.stat().st_size)


@dataclass(frozen=True, slots=True)
class Draft:
    """An image that is built and has no name yet."""

    folder: Path
    """The scratch folder that all pieces are in; more may be made there."""
    bootstrap: Piece
    blob: Piece | None
    """The new blob; None where older images' blobs hold all the data."""
    entries: tuple[BlobEntry, ...]
    """All the blobs that the bootstrap speaks of."""
    chunk_size: int
    config: Json | None
    """The OCI image config that came with the source."""


class Target(Protocol):
    """Where an image goes."""

    place: Path
    """A folder on the file system that the result will be on; a build's scratch folder is made
    in it."""

    def publish(self, draft: Draft) -> list[str]:
        """Bring *draft*'s pieces to where they belong, the name that makes them an image last.

        Returns what its user should know, in words; raises BadSource, OSError. Killed at any
        point, it leaves the old image or the new one, or none, never a half.
        """
        ...
