"""Images of unread files as they are read: every larger file, or tar that files lie in, is a blob.

A bootstrap has room for few blobs, and addresses them in blocks of 4 KiB. So where there are more
files, or they lie in a tar, the bootstrap puts them into one blob for the format's sake alone
(`unhashed`), and what they really are read from is told by their checksums: a blob that is named by
it, in chunks of a MiB from its first byte on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from chunkstore import Blob, Chunk, Codec
from chunkstore.whole import STEP, placeholder

from .bootstrap import Bootstrap
from .chunkmap import ChunkMap, Places
from .metadata import FileMap, Folder, Piece
from .unhashed import Lying, files, lying
from .v6_tables import BlobEntry


def separate(image: Bootstrap) -> Bootstrap:
    """Return *image*, which this closes with itself, with its files' blobs; raises BadImage."""
    places = {nid: place for _, nid in files(image) if (place := lying(image, nid)) is not None}
    if not places:
        return image
    return Bootstrap(_Separate(image, places), image.mapped)


class _Separate:
    """The metadata of such an image."""

    def __init__(self, image: Bootstrap, places: Mapping[int, Lying]) -> None:
        inner = self._inner = image.metadata
        # As quick as they are.
        self.attributes = inner.attributes
        self.lookup = inner.lookup
        self.scan = inner.scan
        self.listing = inner.listing
        self.target = inner.target
        self.has_xattrs = inner.has_xattrs
        self.xattrs = inner.xattrs
        first = (next(image.file_chunks(nid), None) for nid in places)
        gone = {place[0].id for place in first if place is not None}
        kept = [n for n, entry in enumerate(inner.facts.entries) if entry.blob.id not in gone]
        blobs = {place.blob_id: _Blob(place) for place in places.values()}
        self._files = {nid: _File(place, blobs[place.blob_id]) for nid, place in places.items()}
        self._maps: Sequence[int | _Blob] = [*kept, *blobs.values()]
        entries = (
            *(inner.facts.entries[number] for number in kept),
            *(BlobEntry(blob.blob, STEP, Codec.NONE) for blob in blobs.values()),
        )
        self.facts = replace(inner.facts, entries=entries)

    def file(self, nid: int) -> FileMap:
        """Return where a regular file's bytes are."""
        found = self._files.get(nid)
        return self._inner.file(nid) if found is None else found

    def folders(self) -> Iterator[Sequence[Folder]]:
        """Tell of none: a hub's files are large, or come whole."""
        return iter(())

    def chunks(self, blob_index: int) -> ChunkMap:
        """Return the chunks that this image knows of a blob."""
        found = self._maps[blob_index]
        return self._inner.chunks(found) if isinstance(found, int) else found

    def attach(self, blob_index: int, places: Places) -> None:
        """Take the stored places of a blob's chunks from *places* from now on."""
        found = self._maps[blob_index]
        if isinstance(found, int):
            self._inner.attach(found, places)

    def release(self) -> None:
        """Let go of the buffer."""
        self._inner.release()


class _Blob(ChunkMap):
    """A whole file as a blob."""

    def __init__(self, place: Lying) -> None:
        self._checksum = place.checksum
        self._size = place.whole_size
        self._count = -(-place.whole_size // STEP)
        self.blob = Blob(place.blob_id, self._size, self._size, self._count)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Chunk]:
        return map(self.chunk, range(self._count))

    def get(self, index: int) -> Chunk | None:
        """Return the chunk that has *index*, None where there is none."""
        return self.chunk(index) if 0 <= index < self._count else None

    def within(self, start: int, stop: int) -> Iterator[Chunk]:
        """Yield the chunks that have a part in ``[start, stop)``, in order."""
        return map(self.chunk, range(start // STEP, min(-(-stop // STEP), self._count)))

    def at(self, offset: int) -> Chunk | None:
        """Return the chunk that holds byte *offset*."""
        return self.get(offset // STEP)

    def chunk(self, index: int) -> Chunk:
        """Return a chunk that there is."""
        start = index * STEP
        size = min(STEP, self._size - start)
        digest = placeholder(self._checksum, index)
        return Chunk(index, digest, start, size, start, size, Codec.NONE)


class _File:
    """Where the bytes of one file are."""

    __slots__ = ("_of", "_offset", "size")

    def __init__(self, place: Lying, of: _Blob) -> None:
        self.size = place.size
        self._offset = place.offset
        self._of = of

    def at(self, position: int) -> Piece:
        """Return the piece that holds *position*."""
        chunk = self._of.chunk((self._offset + position) // STEP)
        start = max(0, chunk.offset - self._offset)
        stop = min(chunk.stop - self._offset, self.size)
        return Piece(start, stop, self._of.blob, chunk, self._offset + start - chunk.offset)
