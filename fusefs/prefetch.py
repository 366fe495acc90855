"""Which ranges of a file to fetch ahead of its readers: pure.

A file may have several readers at once, so what is followed are streams, not handles: each knows
where its next read would begin, how far has been asked for, and how much to ask for ahead of it.
The first read of a stream asks for nothing; from the second adjoining one on the window grows by
doubling. Reads that adjoin nothing start a stream of their own, so a random reader causes none but
its own fetches.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

FIRST_WINDOW = 1 << 20
"""Bytes; what the kernel itself reads ahead at most."""

LAST_WINDOW = 16 << 20
"""Bytes; a few requests of a few MiB under way fill a link of 10 Gbit/s at 10 ms."""

SLACK = 2 << 20
"""Bytes by which a stream's read may come out of order: the kernel has up to two reads ahead under
way."""

NEAR = 128 << 10
"""Bytes by which the second read of a stream may: less, or random readers of a large file, as a
decoded blob is one for EROFS, would be taken for streams."""

FILES = 1024
"""Files whose streams are remembered; the one read longest ago is forgotten first."""

STREAMS = 8
"""Streams of one file that are remembered."""

BULK = 4 << 20
"""Bytes of a window from which a file is read on, most likely, and is better fed as a whole."""

STRAYS, STRAY_EVERY = 8, 128 << 20
"""Reads that adjoin nothing, and bytes of the file for each of them, from which it is as if all of
it was wanted: a reader of scattered rows waits for each one alone."""


@dataclass(slots=True)
class _Stream:
    next: int
    """Where the next read would begin."""
    asked: int
    """Up to where has been asked for."""
    window: int = 0

    def takes(self, start: int) -> bool:
        slack = SLACK if self.window else NEAR
        return self.next - slack <= start <= max(self.next, self.asked)

    def advance(self, stop: int, size: int) -> tuple[int, int] | None:
        """Move behind *stop* in a file of *size* bytes; return what to fetch ahead."""
        self.next = max(self.next, stop)
        begin = max(self.asked, self.next)
        window = min(self.window * 2, LAST_WINDOW) or FIRST_WINDOW
        end = min(self.next + window, size)
        # Half a window at a time, so that the fetches are large and the asking is rare.
        if begin >= end or (begin - self.next > window // 2 and end < size):
            return None
        self.window, self.asked = window, end
        return begin, end


class Streams:
    """The sequential readers of a session's files."""

    def __init__(self) -> None:
        self._files: OrderedDict[int, list[_Stream]] = OrderedDict()
        self._strays: dict[int, int] = {}
        """How many reads of a file adjoined nothing."""

    def read(self, node: int, start: int, stop: int, size: int) -> tuple[int, int] | None:
        """Take note of a read of file *node*, of *size* bytes; return the range to fetch ahead."""
        streams = self._files.get(node)
        if streams is None:
            self._files[node] = [_Stream(stop, stop)]
            if len(self._files) > FILES:
                forgotten, _ = self._files.popitem(last=False)
                self._strays.pop(forgotten, None)
            return None
        self._files.move_to_end(node)
        for index, stream in enumerate(streams):
            if stream.takes(start):
                if index:
                    streams.insert(0, streams.pop(index))
                return stream.advance(stop, size)
        streams.insert(0, _Stream(stop, stop))
        del streams[STREAMS:]
        self._strays[node] = self._strays.get(node, 0) + 1
        return None

    def bulk(self, node: int, size: int) -> int | None:
        """Return from where on file *node*, of *size* bytes, is better fed as a whole, if it is."""
        strays = self._strays.get(node, 0)
        if strays >= STRAYS and strays * STRAY_EVERY >= size:
            return 0
        streams = self._files.get(node)
        return streams[0].next if streams and streams[0].window >= BULK else None

    def take_back(self, node: int, start: int) -> None:
        """Have what *node*'s last window asked for from *start* on asked for again: no room."""
        stream = self._files[node][0]
        stream.asked = start
        stream.window //= 2
