"""Packing: a piece as an LZ4 block, where that saves enough."""

from __future__ import annotations

import lz4.block
import trio

from chunkstore import Buffer, Chunk
from chunkstore.chunk import Codec
from chunkstore.codec import decode

from .holdings import Upload

WORTH = 0.9
"""A block is sent where it is smaller than this share of the piece."""

_IN_THREAD = 64 << 10
"""Bytes from which packing goes to a thread: it takes 1 to 2 ms per MiB."""

PAYS = 50e6
"""Bytes per second below which a parent is asked to pack: what it takes to pack and unpack is less
than what it saves, at a third off, on every link up to about this one."""


def pays(chunk: Chunk, rate: float) -> bool:
    """Say whether to ask for *chunk* packed, of a parent that sends *rate* bytes per second.

    A chunk that was stored as it is does not shrink; a rate of 0 is not known yet.
    """
    return chunk.codec is not Codec.NONE and 0 < rate < PAYS


class Packing:
    """One piece to be packed."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload

    async def packed(self) -> bytes | None:
        """Return the block; None where it saves too little. Raises Gone."""
        data = self._upload.copy(0, self._upload.size)
        if not data:  # locked for a moment
            return None
        if len(data) < _IN_THREAD:
            block = pack(data)
        else:
            block = await trio.to_thread.run_sync(pack, data)
        return block if len(block) < WORTH * len(data) else None


def pack(data: Buffer) -> bytes:
    """Return *data* as an LZ4 block without its size."""
    block: bytes = lz4.block.compress(data, store_size=False)
    return block


def unpack(block: Buffer, size: int) -> Buffer:
    """Return the *size* bytes of a block; raises Corrupt."""
    return decode(Codec.LZ4, block, size)
