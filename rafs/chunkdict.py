"""A chunk dict: chunks that the blobs of older images hold, which a build need not store again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from chunkstore import Algorithm, Chunk

from .bootstrap import Bootstrap
from .errors import BadSource
from .v6_tables import BlobEntry

_T = TypeVar("_T")

_IMAGE, _BLOB = 32, 24
"""Where the numbers of an image and of its blob start in a place; below is the chunk's number."""


@dataclass(frozen=True, slots=True)
class Lent:
    """A chunk that an older image's blob holds."""

    entry: BlobEntry
    chunk: Chunk


class ChunkDict:
    """Finds chunks in older images by digest. A number per chunk is all it keeps in memory."""

    def __init__(self, images: Sequence[Bootstrap] = ()) -> None:
        self._images = images
        self._places: dict[bytes, int] = {}
        for number, image in enumerate(images):
            if image.version != 6:
                raise BadSource(f"chunk dict {number + 1} is RAFS v{image.version}, not v6")
            self._add(number, image)

    @property
    def chunk_size(self) -> int | None:
        """What the new image must be cut by; None: as it likes."""
        return _only({image.chunk_size for image in self._images}, "chunk sizes")

    @property
    def algorithm(self) -> Algorithm | None:
        """How the new image's chunks must be hashed; None: as it likes."""
        return _only({image.algorithm for image in self._images}, "digest functions")

    def find(self, digest: bytes, size: int) -> Lent | None:
        """Return the chunk with that digest, if any; raises BadSource unless it fits *size*."""
        place = self._places.get(digest)
        if place is None:
            return None
        image = self._images[place >> _IMAGE]
        blob = place >> _BLOB & 0xFF
        chunk = image.chunks(blob).get(place & 0xFFFFFF)
        if chunk is None or chunk.size != size:
            raise BadSource(f"chunk dict: the chunk {digest.hex()} is not one of {size} bytes")
        return Lent(image.blob_entries[blob], chunk)

    def __contains__(self, digest: object) -> bool:
        return digest in self._places

    def _add(self, number: int, image: Bootstrap) -> None:
        for blob, entry in enumerate(image.blob_entries):
            # A chunk inside a shared unit, or off a block, has no place in a new chunk table.
            if entry.is_batched:
                continue
            base = number << _IMAGE | blob << _BLOB
            for chunk in image.chunks(blob):
                self._places.setdefault(chunk.digest.raw, base | chunk.index)


def _only(found: set[_T], what: str) -> _T | None:
    if len(found) > 1:
        raise BadSource(f"the chunk dicts have different {what}: {sorted(map(str, found))}")
    return next(iter(found), None)
