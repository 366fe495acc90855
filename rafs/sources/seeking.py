"""Seeking: a file that is read in places, as a stream. What is passed over is not read."""

from __future__ import annotations

from collections.abc import Callable

from chunkstore import Buffer
from rafs.errors import BadSource

from .streams import Stream

WINDOW = 64 << 10
"""Bytes read at once: a header, and those of the small files behind it."""


class Seeking(Stream):
    """The bytes ``[0, size)`` of what *read* reads."""

    def __init__(self, read: Callable[[int, int], Buffer], size: int, what: str) -> None:
        super().__init__((), what)
        self._read = read
        self._size = size

    def some(self, limit: int) -> memoryview:
        """Return some next bytes, at most *limit*; none at the end."""
        if not self._rest and self.position < self._size:
            stop = min(self.position + WINDOW, self._size)
            self._rest = memoryview(self._read(self.position, stop))
        part, self._rest = self._rest[:limit], self._rest[limit:]
        self.position += len(part)
        return part

    def skip(self, size: int) -> None:
        """Pass over *size* bytes; raises BadSource where fewer are left."""
        if self.position + size > self._size:
            raise BadSource(f"{self.what} ends at byte {self._size}, in the middle of a file")
        self._rest = self._rest[size:]
        self.position += size
