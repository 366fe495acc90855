"""Folders: small files of one directory, fetched together where a program reads many of them.

Who imports modules reads many small files in no order, half of those of some directories and none
of most others. So once an image has shown that it is read like that, the second file that is missed
in a directory brings the others, and the first where they are hardly more than a request costs: as
long as an eighth of what comes so is read.

Which chunks lie together the metadata tells, a few directories at each miss: the kernel's EROFS
asks for bytes of blobs, and by no names.

Tasks: of the event loop; no method awaits.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from chunkstore import Blob, Chunk
from rafs import RafsError

from .tree import Chunks, Tree

SMALL_FILE = 128 << 10
"""Bytes of a file that is not small any more: over 100 Mbit/s it takes longer than two requests."""

SURVEYED_FROM, BEGUN_AT = 8, 16
"""Misses of small files from which on it is looked what lies together, and from which on that
counts. A program that imports little says its word before."""

BLOCKS, NAMES = 64, 512
"""Blocks of directories, or files in them, that are looked at with a miss: 1 ms."""

NEEDED = 2
"""Misses that a directory shows before the rest of it is brought."""

FREE, FREER = 64 << 10, 256 << 10
"""Stored bytes of a whole directory that come with its first miss: over 100 Mbit/s they take as
long as a request of their own [5 ms of docker-registry's time]; and as long as most of what comes
so is read."""

MOST = 4 << 20
"""Stored bytes that are brought of a directory."""

WORTH = 8
"""Chunks that may come for each that is read: a request costs a registry next door 5 ms and one far
away a round trip; to receive, verify and keep a small chunk takes 0.2 ms."""

CREDIT, MOST_CREDIT = 256, 1024
"""Chunks that may come before any of them is read, and at most: who has just got a directory has
not read it yet."""

MUCH = 512
"""Credit that only comes of directories that were read."""

REMEMBERED = 1 << 14
"""Misses."""

ROOM = 1 << 20
"""Chunks of which it is known what they lie beside: 4 bytes each. More are left out."""


@dataclass(slots=True)
class _Folder:
    indices: array[int]
    brought: bool = False


class Folders:
    """The directories of one image."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._misses = 0
        self._missed: set[tuple[str, int]] = set()
        """Blobs and indices."""
        self._survey: Iterator[Sequence[tuple[int, Sequence[int]]]] | None = None
        self._folders: list[_Folder] = []
        self._places: dict[str, array[int]] = {}
        """By blob: for each chunk the number of its folder, from 1 on."""
        self._room = ROOM
        self._credit = CREDIT
        """Chunks that may still be brought."""

    def knows(self, blob: Blob, chunk: Chunk) -> bool:
        """Say whether it is for this to decide what comes along with *chunk*."""
        return self._misses >= BEGUN_AT and self._find(blob, chunk) is not None

    def use(self) -> None:
        """Take note that a chunk that was brought is read."""
        self._credit = min(self._credit + WORTH, MOST_CREDIT)

    def missed(self, blob: Blob, chunk: Chunk, chunks: Chunks) -> Sequence[Chunk]:
        """Take note of a miss; return what is to be brought along; raises RafsError."""
        key = blob.id, chunk.index
        if key in self._missed:  # the kernel asks for a chunk in pieces
            return ()
        if len(self._missed) >= REMEMBERED:
            self._missed.clear()
        self._missed.add(key)
        self._misses += 1
        if self._misses >= SURVEYED_FROM:
            self._look_on()
        folder = self._find(blob, chunk)
        if folder is None or folder.brought or self._misses < BEGUN_AT or self._credit <= 0:
            return ()
        rest = self._rest(folder, blob, chunks)
        places = {chunk.index, *(one.index for one in rest)}
        # What lies alone would be a request of its own.
        along = [one for one in rest if {one.index - 1, one.index + 1} & places]
        self._credit -= len(along)
        return along

    def _rest(self, folder: _Folder, blob: Blob, chunks: Chunks) -> Sequence[Chunk]:
        """Return what was not missed of a folder, if it is time for that."""
        others = [index for index in folder.indices if (blob.id, index) not in self._missed]
        found = [chunk for index in others if (chunk := chunks.get(index)) is not None]
        small = [chunk for chunk in found if chunk.size < SMALL_FILE]
        size = sum(chunk.stored_size for chunk in small)
        free = FREER if self._credit >= MUCH else FREE
        if len(folder.indices) - len(others) < NEEDED and size > free:
            return ()
        folder.brought = True
        while size > MOST:
            size -= small.pop().stored_size
        return small

    def _find(self, blob: Blob, chunk: Chunk) -> _Folder | None:
        places = self._places.get(blob.id, ())
        number = places[chunk.index] if chunk.index < len(places) else 0
        return self._folders[number - 1] if number else None

    def _look_on(self) -> None:
        """Look at some more directories."""
        if self._survey is None:
            self._survey = self._tree.folders()
        with suppress(RafsError):  # whoever reads the damaged directory will hear of it
            names = 0
            for block in islice(self._survey, BLOCKS):
                for number, indices in block:
                    self._note(number, indices)
                    names += len(indices)
                if names >= NAMES:
                    break

    def _note(self, number: int, indices: Sequence[int]) -> None:
        if len(indices) < NEEDED or not 0 <= number < len(self._tree.blobs):
            return
        places = self._places.setdefault(self._tree.blobs[number].id, array("I"))
        more = max(0, max(indices) + 1 - len(places))
        if more > self._room:
            return
        self._room -= more
        places.extend([0] * more)
        self._folders.append(_Folder(array("I", indices)))
        for index in indices:
            places[index] = len(self._folders)
