"""Extents: which bytes of which chunks a read needs. The only read arithmetic there is."""

from __future__ import annotations

from collections.abc import Iterator

from chunkstore import Blob, Chunk, Extent

from .metadata import FileMap


def extents(file: FileMap, start: int, stop: int) -> list[Extent]:
    """Return what holds ``[start, stop)`` of *file*, clipped to its size, piece by piece in order.

    Adjoining pieces of one chunk, or of one hole, are one extent; none is empty. Raises BadImage.
    """
    found: list[Extent] = []
    position, stop = max(start, 0), min(stop, file.size)
    while position < stop:
        piece = file.at(position)
        end = min(piece.stop, stop)
        first = piece.offset + position - piece.start if piece.chunk is not None else 0
        extent = Extent(piece.blob, piece.chunk, first, first + end - position)
        if found and _adjoin(found[-1], extent):
            last = found.pop()
            extent = Extent(last.blob, last.chunk, last.start, last.stop + extent.size)
        found.append(extent)
        position = end
    return found


def file_chunks(file: FileMap) -> Iterator[tuple[Blob, Chunk] | None]:
    """Yield what a whole file is made of, in order; None for a hole. Raises BadImage."""
    position, last = 0, None
    while position < file.size:
        piece = file.at(position)
        if piece.blob is None or piece.chunk is None:
            yield None
        elif piece.chunk is not last:
            yield piece.blob, piece.chunk
        last = piece.chunk
        position = piece.stop


def _adjoin(last: Extent, extent: Extent) -> bool:
    if extent.chunk is None or last.chunk is None:
        return extent.chunk is last.chunk
    return extent.start == last.stop and extent.chunk == last.chunk and extent.blob == last.blob
