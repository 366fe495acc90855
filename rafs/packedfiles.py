"""PackedFiles: files of an image that is being built, read back from its packed blob."""

from __future__ import annotations

import functools
import os
from types import TracebackType
from typing import Self

from chunkstore import Buffer, Codec
from chunkstore.codec import decode

from .packing import Rules
from .stock import Stock
from .tree import HOLE, Node

_KEPT = 16
"""Decoded chunks."""


class PackedFiles:
    """To be closed; nothing may be packed meanwhile."""

    def __init__(self, stock: Stock, rules: Rules, packed: str | os.PathLike[str]) -> None:
        """Read the chunks of *stock* from the file *packed*."""
        self._own = stock.own
        self._rules = rules
        self._index_of = {number: index for index, number in enumerate(stock.own_numbers())}
        self._file = os.open(packed, os.O_RDONLY | os.O_CLOEXEC)
        self._chunk = functools.lru_cache(_KEPT)(self._decoded)

    def read(self, node: Node, start: int, size: int) -> bytes:
        """Return *size* bytes of a file, fewer at its end or where an older image has the rest.

        Raises OSError.
        """
        step, parts = self._rules.chunk_size, []
        stop = min(start + size, node.size)
        while start < stop:
            number = node.chunks[start // step]
            inside = start % step
            count = min(stop - start, step - inside)
            index = self._index_of.get(number)
            if number == HOLE:
                parts.append(bytes(count))
            elif index is None:
                break
            else:
                parts.append(bytes(memoryview(self._chunk(index))[inside : inside + count]))
            start += count
        return b"".join(parts)

    def _decoded(self, index: int) -> Buffer:
        _, _, size, stored_offset, stored_size = self._own.place(index)
        stored = os.pread(self._file, stored_size, stored_offset)
        # What a codec gains nothing on is stored as it is.
        codec = self._rules.codec if stored_size < size else Codec.NONE
        return decode(codec, stored, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._chunk.cache_clear()
        os.close(self._file)
