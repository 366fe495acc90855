"""The chunks of an image that is being built: each once, in its own blob or an older image's."""

from __future__ import annotations

from chunkstore import CHUNKS_PER_BLOB, Buffer, Chunk, Codec, Digest

from .blobwriter import BlobWriter
from .chunkdict import ChunkDict, Lent
from .errors import BadSource
from .packing import Packed, Rules
from .v6_chunklist import ChunkList
from .v6_tables import BlobEntry

BLOCK = 4096
"""Decoded chunks start on blocks, so that the kernel can map them."""


class Stock:
    """Numbers chunks in the order they come, and hands the new ones' bytes to the blob."""

    def __init__(self, rules: Rules, writer: BlobWriter, lender: ChunkDict) -> None:
        self.chunks = ChunkList()
        """All chunks the image refers to."""
        self.own: list[Chunk] = []
        """Those in the new blob, in its order."""
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

    def _store(self, digest: bytes, size: int, stored: Buffer, coded: bool) -> int:
        if not stored:
            raise RuntimeError("a chunk that nobody has stored was taken for a known one")
        index = len(self.own)
        if index == CHUNKS_PER_BLOB:
            raise BadSource(f"more than {CHUNKS_PER_BLOB} chunks: use a larger chunk size")
        chunk = Chunk(
            index=index,
            digest=Digest(self._rules.algorithm, digest),
            offset=self.size,
            size=size,
            stored_offset=self._writer.size,
            stored_size=len(stored),
            codec=self._rules.codec if coded else Codec.NONE,
        )
        number = self.chunks.append(self._blob_number(None), chunk)
        self._writer.write(stored)
        self.size += -(-size // BLOCK) * BLOCK
        self.own.append(chunk)
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
