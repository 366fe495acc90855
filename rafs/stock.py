"""The chunks of an image that is being built: each once, in its own blob or an older image's."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator

from chunkstore import CHUNKS_PER_BLOB, Buffer, Codec

from .blobwriter import BlobWriter
from .chunkdict import ChunkDict, Lent
from .errors import BadSource
from .packing import Packed, Rules
from .v6_chunklist import ChunkList, Place
from .v6_tables import BlobEntry

BLOCK = 4096
"""Decoded chunks start on blocks, so that the kernel can map them."""

_DIGEST = 32


class OwnChunks:
    """The chunks of a new blob in its order, packed: 60 bytes each."""

    def __init__(self) -> None:
        self.digests = bytearray()
        self._offsets, self._stored_offsets = array("Q"), array("Q")
        self._sizes, self._stored_sizes = array("I"), array("I")

    def add(self, digest: bytes, place: Place) -> None:
        """Add the next one; raises BadSource when there are too many for a blob."""
        index, offset, size, stored_offset, stored_size = place
        if index == CHUNKS_PER_BLOB:
            raise BadSource(f"more than {CHUNKS_PER_BLOB} chunks: use a larger chunk size")
        self.digests += digest
        self._offsets.append(offset)
        self._sizes.append(size)
        self._stored_offsets.append(stored_offset)
        self._stored_sizes.append(stored_size)

    def place(self, index: int) -> Place:
        """Return where a chunk is."""
        where = self._offsets[index], self._sizes[index]
        return index, *where, self._stored_offsets[index], self._stored_sizes[index]

    def digest(self, index: int) -> bytes:
        """Return a chunk's digest."""
        return bytes(self.digests[index * _DIGEST : (index + 1) * _DIGEST])

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[Place]:
        columns = self._offsets, self._sizes, self._stored_offsets, self._stored_sizes
        return zip(itertools.count(), *columns, strict=False)


class Stock:
    """Numbers chunks in the order they come, and hands the new ones' bytes to the blob."""

    def __init__(self, rules: Rules, writer: BlobWriter, lender: ChunkDict) -> None:
        self.chunks = ChunkList()
        """All chunks the image refers to."""
        self.own = OwnChunks()
        """Those in the new blob."""
        self.size = 0
        """Bytes of the new blob's decoded address space so far."""
        self.shared = 0
        """Bytes of chunks that came again, or that an older image lends."""
        self.numbers: dict[bytes, int] = {}
        """By digest, the number in ``chunks``; only grows."""
        self.entries: list[BlobEntry | None] = []
        """The image's blobs by their numbers; None is the new one, whose name comes last."""
        self._writer = writer
        self._lender = lender
        self._rules = rules
        self._blobs: dict[str, int] = {}

    def __contains__(self, digest: object) -> bool:
        return digest in self.numbers or digest in self._lender

    def place(self, packed: Packed) -> list[int]:
        """Return the numbers of the chunks in *packed*; what is new goes to the blob."""
        placed = []
        numbers = self.numbers
        for digest, size, stored, coded in zip(
            packed.digests, packed.sizes, packed.stored, packed.coded, strict=True
        ):
            number = numbers.get(digest)
            if number is None:
                number = self._borrow(digest, size)
                if number is None:
                    number = self._store(digest, size, stored, coded)
                numbers[digest] = number
            else:
                self.shared += size
            placed.append(number)
        return placed

    def own_numbers(self) -> list[int]:
        """Return the numbers of the new blob's chunks, in the order that they were stored in."""
        return self.chunks.numbers_of(self._blobs.get("", -1))

    def _store(self, digest: bytes, size: int, stored: Buffer, coded: bool) -> int:
        if not stored:
            raise RuntimeError("a chunk that nobody has stored was taken for a known one")
        own, rules = self.own, self._rules
        stored_size = len(stored)
        place = len(own), self.size, size, self._writer.size, stored_size
        codec = rules.codec if coded else Codec.NONE
        number = self.chunks.add(self._blob_number(None), digest, place, codec)
        own.add(digest, place)
        self._writer.write(stored)
        self.size += -(-size // BLOCK) * BLOCK
        return number

    def _borrow(self, digest: bytes, size: int) -> int | None:
        lent = self._lender.find(digest, size)
        if lent is None:
            return None
        self.shared += size
        return self.chunks.append(self._blob_number(lent), lent.chunk)

    def _blob_number(self, lent: Lent | None) -> int:
        # Blobs are numbered by their first use, so that one nobody uses is not listed.
        blob_id = lent.entry.blob.id if lent else ""
        number = self._blobs.get(blob_id)
        if number is None:
            number = self._blobs[blob_id] = len(self.entries)
            self.entries.append(lent.entry if lent else None)
        return number
