"""FileData: the verified bytes of an image's files, read from stored blobs front to back.

For those who want whole files, one after the other, without a cache: files lie in a blob in the
order of the tree, so reads that go on where the last one ended fetch a window of stored bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chunkstore import Blob, Buffer, Chunk, Corrupt, Digest, codec

from .bootstrap import Bootstrap
from .verify import ReadStored

WINDOW = 4 << 20
"""Stored bytes read ahead."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a file; a run of zeros has no data."""

    start: int
    """In the file."""
    size: int
    blob: Blob | None = None
    chunk: Chunk | None = None
    offset: int = 0
    """Where in the chunk the piece begins."""


class FileData:
    """Reads files of one image; for one thread."""

    def __init__(self, bootstrap: Bootstrap, read: ReadStored) -> None:
        self._bootstrap = bootstrap
        self._read = read
        self._zeros: dict[int, Digest] = {}
        self._window: tuple[str, int, Buffer] = ("", 0, b"")
        self._unit: tuple[str, int, int, Buffer] = ("", 0, -1, b"")

    def pieces(self, nid: int, size: int) -> Iterator[Piece]:
        """Yield what a file of *size* bytes is made of, in order; raises BadImage."""
        start = 0
        while start < size:
            stop = min(start + WINDOW, size)
            for extent in self._bootstrap.extents(nid, start, stop):
                zeros = extent.chunk is None or self._is_zeros(extent.chunk)
                blob, chunk = (None, None) if zeros else (extent.blob, extent.chunk)
                yield Piece(start, extent.size, blob, chunk, extent.start)
                start += extent.size

    def data(self, piece: Piece) -> Buffer:
        """Return the bytes of a piece that has a chunk.

        Raises Corrupt if they do not match their digest, and what reading stored bytes raises.
        """
        assert piece.blob is not None
        assert piece.chunk is not None
        data = self._chunk(piece.blob, piece.chunk)
        return memoryview(data)[piece.offset : piece.offset + piece.size]

    def _is_zeros(self, chunk: Chunk) -> bool:
        # Zeros are told by their digest, so they cost no reading.
        zeros = self._zeros.get(chunk.size)
        if zeros is None or zeros.algorithm is not chunk.digest.algorithm:
            zeros = self._zeros[chunk.size] = Digest.of(bytes(chunk.size), chunk.digest.algorithm)
        return zeros == chunk.digest

    def _chunk(self, blob: Blob, chunk: Chunk) -> Buffer:
        place = (blob.id, chunk.stored_offset, chunk.stored_size)
        if self._unit[:3] != place:
            stored = self._stored(blob, chunk)
            unit = codec.decode(chunk.codec, stored, chunk.unit_size or chunk.size)
            self._unit = (*place, unit)
        data = codec.slice_of(chunk, self._unit[3])
        if not chunk.digest.matches(data):
            raise Corrupt(f"chunk {chunk.index} of blob {blob.id} does not match its digest")
        return data

    def _stored(self, blob: Blob, chunk: Chunk) -> Buffer:
        blob_id, start, window = self._window
        inside = blob_id == blob.id and start <= chunk.stored_offset
        goes_on = inside and chunk.stored_offset <= start + len(window)
        if not inside or chunk.stored_stop > start + len(window):
            stop = chunk.stored_stop
            if goes_on or chunk.stored_offset == 0:
                stop = max(stop, min(chunk.stored_offset + WINDOW, blob.stored_size))
            start = chunk.stored_offset
            window = self._read(blob.id, start, stop)
            self._window = (blob.id, start, window)
        at = chunk.stored_offset - start
        return memoryview(window)[at : at + chunk.stored_size]
