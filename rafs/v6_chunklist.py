"""ChunkList: the chunks of an image that is being built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chunkstore import Buffer, Chunk, Codec

from . import erofs
from .errors import BadSource
from .v6_tables import CHUNK, COMPRESSED, BlobEntry

Place = tuple[int, int, int, int, int]
"""A chunk's index, offset, size, stored offset and stored size."""

_HOLE_INDEX = erofs.INDEX.pack(0, 0, erofs.NO_BLOCK)


class ChunkList:
    """Chunks in any order, packed as chunk table and inodes will hold them: 88 bytes each."""

    def __init__(self) -> None:
        self._records = bytearray()
        self._indexes = bytearray()
        self._codecs: set[tuple[int, Codec]] = set()
        self._last = -1
        self._sorted = True

    def append(self, blob_index: int, chunk: Chunk) -> int:
        """Add *chunk* of the blob with that index and return its number in this list."""
        stored = chunk.stored_offset, chunk.stored_size
        place = chunk.index, chunk.offset, chunk.size, *stored
        return self.add(blob_index, chunk.digest.raw, place, chunk.codec)

    def add(self, blob_index: int, digest: bytes, place: Place, codec: Codec) -> int:
        """Do what ``append`` does, for those who have a chunk's facts and many chunks."""
        number = len(self)
        index, offset, size, stored_offset, stored_size = place
        if offset % erofs.BLOCK:
            raise BadSource(f"a chunk at byte {offset} of its blob, not on a block")
        flags = 0
        if codec is not Codec.NONE:
            flags = COMPRESSED
            self._codecs.add((blob_index, codec))
        self._records += CHUNK.pack(
            digest, blob_index, flags, stored_size, size, stored_offset, offset, 0, index, 0
        )
        self._indexes += erofs.INDEX.pack(*_index(blob_index, place))
        key = blob_index << 24 | index
        self._sorted = self._sorted and self._last < key
        self._last = key
        return number

    def move(self, number: int, place: Place) -> None:
        """Give a chunk of this list another place in its blob."""
        start = number * CHUNK.size
        index, offset, size, stored_offset, stored_size = place
        digest, blob_index, flags, *_ = CHUNK.unpack_from(self._records, start)
        facts = stored_size, size, stored_offset, offset, 0, index, 0
        CHUNK.pack_into(self._records, start, digest, blob_index, flags, *facts)
        erofs.INDEX.pack_into(self._indexes, number * erofs.INDEX.size, *_index(blob_index, place))
        self._sorted = False

    def numbers_of(self, blob_index: int) -> list[int]:
        """Return the numbers in this list of a blob's chunks, in the order they came."""
        return [number for number, (blob, _) in enumerate(self._keys()) if blob == blob_index]

    def __len__(self) -> int:
        return len(self._records) // CHUNK.size

    def indexes(self, numbers: Sequence[int]) -> bytes:
        """Return the chunk index array of a file made of these chunks; HOLE gives a hole."""
        if len(numbers) == 1:
            return bytes(self._indexes[8 * numbers[0] : 8 * numbers[0] + 8]) or _HOLE_INDEX
        indexes = self._indexes
        return b"".join([indexes[8 * n : 8 * n + 8] or _HOLE_INDEX for n in numbers])

    def records(self) -> Iterator[Buffer]:
        """Yield the chunk table's bytes, sorted by blob and index; raises BadSource for doubles."""
        if self._sorted:
            yield self._records
            return
        keys = [blob << 24 | index for blob, index in self._keys()]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        if len(set(keys)) != len(keys):
            raise BadSource("two chunks of one blob with the same index")
        for row in order:
            yield self._records[row * CHUNK.size : (row + 1) * CHUNK.size]

    def check(self, blobs: Sequence[BlobEntry]) -> None:
        """Raise BadSource unless every chunk can belong to one of *blobs*."""
        for blob_index, codec in self._codecs:
            if blob_index < len(blobs) and blobs[blob_index].codec is not codec:
                raise BadSource(
                    f"blob {blobs[blob_index].blob.id}: a chunk in {codec.name}, not "
                    f"{blobs[blob_index].codec.name}"
                )
        if any(blob_index >= len(blobs) for blob_index, _ in self._keys()):
            raise BadSource("a chunk of a blob that is not there")

    def _keys(self) -> Iterator[tuple[int, int]]:
        for record in CHUNK.iter_unpack(self._records):
            yield record[1], record[8]


def _index(blob_index: int, place: Place) -> tuple[int, int, int]:
    """Return what inodes hold of a chunk."""
    index, offset, *_ = place
    high = (index >> 16) << 8 | blob_index + 1
    return index & 0xFFFF, high, offset // erofs.BLOCK
