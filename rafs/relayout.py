"""Laying a blob out anew: the chunks that a start needs first, in its order, then the others.

Sources give files in their own order, and an archive gives them once. So a blob is packed in that
order first; where files are listed, its stored chunks are then copied, run by run, into a second
one, at the speed of the disk. Nothing is hashed or compressed again. What lies together is fetched
in few requests, whatever the list's files were called or shared.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from .blobwriter import BlobWriter
from .erofs import round_block
from .listed import files
from .stock import OwnChunks, Stock
from .tree import HOLE, Node

_COPY = 1 << 20
"""Bytes copied at a time."""


def listed_first(stock: Stock, nodes: Sequence[Node]) -> list[int] | None:
    """Return the blob's chunks in the order that they should have; None if they have it.

    A chunk of several files counts where it is needed first.
    """
    own = stock.own_numbers()
    index_of = {number: index for index, number in enumerate(own)}
    first: dict[int, None] = {}
    for node in files(nodes):
        for number in node.chunks:
            index = index_of.get(number) if number != HOLE else None
            if index is not None:
                first[index] = None
    if all(index == place for place, index in enumerate(first)):
        return None
    return [*first, *(index for index in range(len(own)) if index not in first)]


def lay_out(stock: Stock, order: Sequence[int], packed: Path, writer: BlobWriter) -> None:
    """Copy the chunks in the file *packed* to *writer* in *order*; *stock* speaks of it then.

    Raises OSError.
    """
    with packed.open("rb") as file:
        for start, stop in _runs(stock.own, order):
            _copy(file.fileno(), start, stop, writer)
    own, numbers = OwnChunks(), stock.own_numbers()
    offset = stored_offset = 0
    for index, old in enumerate(order):
        _, _, size, _, stored_size = stock.own.place(old)
        place = index, offset, size, stored_offset, stored_size
        own.add(stock.own.digest(old), place)
        stock.chunks.move(numbers[old], place)
        offset += round_block(size)
        stored_offset += stored_size
    stock.own = own


def _runs(own: OwnChunks, order: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the stored bytes of chunks in *order*, in as few ranges as they lie in."""
    start = stop = 0
    for index in order:
        _, _, _, stored_offset, stored_size = own.place(index)
        if stored_offset != stop:
            if start < stop:
                yield start, stop
            start = stored_offset
        stop = stored_offset + stored_size
    if start < stop:
        yield start, stop


def _copy(descriptor: int, start: int, stop: int, writer: BlobWriter) -> None:
    while start < stop:
        data = os.pread(descriptor, min(_COPY, stop - start), start)
        if not data:
            raise OSError(errno.EIO, "the blob was cut while it was laid out anew")
        writer.write(data)
        start += len(data)
