"""StoredReader: verified bytes straight from stored blobs, for whoever reads whole files in order.

Files lie in a blob in the order of the tree, so a read that goes on where the last one ended
fetches a window of stored bytes; one that does not fetches its chunk alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from chunkstore import Blob, Buffer, Chunk, Corrupt, Extent, codec

from .verify import ReadStored

WINDOW = 4 << 20
"""Stored bytes read ahead."""


class StoredReader:
    """Reads extents, as ``content.Reader`` says; for one thread at a time."""

    def __init__(self, read: ReadStored) -> None:
        self._read = read
        self._window: tuple[str, int, Buffer] = ("", 0, b"")
        self._chunk: tuple[str, int, Buffer] = ("", -1, b"")

    def read(self, extents: Sequence[Extent]) -> Buffer:
        """Return the bytes of *extents*; raises Corrupt, and what reading stored bytes raises."""
        parts = [self._part(extent) for extent in extents]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _part(self, extent: Extent) -> Buffer:
        if extent.blob is None or extent.chunk is None:
            return bytes(extent.size)
        data = self._verified(extent.blob, extent.chunk)
        return memoryview(data)[extent.start : extent.stop]

    def _verified(self, blob: Blob, chunk: Chunk) -> Buffer:
        if self._chunk[:2] != (blob.id, chunk.index):
            stored = self._stored(blob, chunk)
            unit = codec.decode(chunk.codec, stored, chunk.unit_size or chunk.size)
            data = codec.slice_of(chunk, unit)
            if not chunk.digest.matches(data):
                raise Corrupt(f"chunk {chunk.index} of blob {blob.id} does not match its digest")
            self._chunk = (blob.id, chunk.index, data)
        return self._chunk[2]

    def _stored(self, blob: Blob, chunk: Chunk) -> Buffer:
        blob_id, start, window = self._window
        stop = start + len(window)
        if blob_id != blob.id or not start <= chunk.stored_offset <= chunk.stored_stop <= stop:
            goes_on = blob_id == blob.id and start <= chunk.stored_offset <= stop
            start, stop = chunk.stored_offset, chunk.stored_stop
            if goes_on or start == 0:
                stop = max(stop, min(start + WINDOW, blob.stored_size))
            window = self._read(blob.id, start, stop)
            self._window = (blob.id, start, window)
        at = chunk.stored_offset - start
        return memoryview(window)[at : at + chunk.stored_size]
