"""Held chunks: verified bytes that the cache had no room for, in a little memory."""

from __future__ import annotations

from collections import OrderedDict

from .wanted import Key

HELD_SIZE = 32 << 20
"""Bytes, about what a sequential reader's window needs while the disk is full."""


class Held:
    """Chunks in memory, the longest unused going first."""

    def __init__(self, size: int = HELD_SIZE) -> None:
        self._room = size
        self._chunks: OrderedDict[Key, bytes] = OrderedDict()
        self.size = 0

    def get(self, key: Key) -> bytes | None:
        """Return a chunk's bytes if they are here."""
        data = self._chunks.get(key)
        if data is not None:
            self._chunks.move_to_end(key)
        return data

    def put(self, key: Key, data: bytes) -> None:
        """Keep *data*, letting go of what was not used for long."""
        self.drop(key)
        self._chunks[key] = data
        self.size += len(data)
        while self.size > self._room:
            _, old = self._chunks.popitem(last=False)
            self.size -= len(old)

    def drop(self, key: Key) -> None:
        """Let go of a chunk."""
        old = self._chunks.pop(key, b"")
        self.size -= len(old)

    def __bool__(self) -> bool:
        return bool(self._chunks)
