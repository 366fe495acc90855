from __future__ import annotations

import random
from collections.abc import Sequence
from typing import cast

import pytest

from chunkstore import Blob, Chunk, Codec, Digest, Extent
from fusefs.neighbours import FIRST_WINDOW, LAST_WINDOW, SMALL, Neighbours
from fusefs.tree import Tree
from rafs import BadImage

COUNT = 4000
SIZE = 8192


class _Blobs:
    """A tree of which nothing is asked but its chunks."""

    def __init__(self, sizes: Sequence[int], *, bad: int = -1) -> None:
        self.blob = Blob("b", sum(sizes), sum(sizes), len(sizes))
        self._bad = bad
        self._chunks = []
        offset = 0
        for index, size in enumerate(sizes):
            digest = Digest.of(b"%d" % index)
            self._chunks.append(Chunk(index, digest, offset, size, offset, size, Codec.NONE))
            offset += size

    def by_index(self, blob: Blob) -> _Blobs:
        return self

    def get(self, index: int) -> Chunk | None:
        if index == self._bad:
            raise BadImage("a record")
        return self._chunks[index]


class _Reader:
    """Reads files, one chunk each, of which nothing is here at first."""

    def __init__(self, blobs: _Blobs, room: int = 1 << 30) -> None:
        self._blobs = blobs
        self._room = room
        self.here: set[int] = set()
        self.misses = 0
        self.neighbours = Neighbours(cast(Tree, blobs), self._want)

    def _want(self, blob: Blob, chunks: Sequence[Chunk]) -> int:
        taken = chunks[: self._room]
        self.here.update(chunk.index for chunk in taken)
        return len(taken)

    def read(self, index: int) -> None:
        chunk = self._blobs._chunks[index]
        extents = [Extent(self._blobs.blob, chunk, 0, chunk.size)]
        self.neighbours.read(extents)
        if index not in self.here:
            self.misses += 1
            self.here.add(index)
            self.neighbours.missed(extents)


def _small() -> _Reader:
    return _Reader(_Blobs([SIZE] * COUNT))


def test_a_read_alone_fetches_nothing_but_its_own() -> None:
    reader = _small()
    reader.read(500)
    assert reader.here == {500}


def test_reads_here_and_there_fetch_nothing_but_their_own() -> None:
    reader = _small()
    places = random.Random(1).sample(range(0, COUNT, 64), 40)
    for index in places:
        reader.read(index)
    assert reader.here == set(places)


def test_who_goes_through_a_directory_waits_a_few_times() -> None:
    reader = _small()
    for index in range(COUNT):
        reader.read(index)
    least = COUNT * SIZE // LAST_WINDOW
    assert least < reader.misses < least + 12


def test_who_goes_back_does_too() -> None:
    reader = _small()
    for index in reversed(range(1000)):
        reader.read(index)
    assert reader.misses < 16


def test_two_that_adjoin_bring_a_little_and_two_that_do_not_nothing() -> None:
    reader = _small()
    reader.read(100)
    reader.read(104)
    assert reader.here == {100, 104}
    reader.read(105)
    assert len(reader.here) - 3 == FIRST_WINDOW // SIZE


def test_of_files_passed_over_little_is_brought() -> None:
    reader = _small()
    read = range(0, COUNT, 10)
    for index in read:
        reader.read(index)
    brought = len(reader.here) - len(read)
    assert 0 < brought * SIZE < len(read) * FIRST_WINDOW // 10


def test_who_passed_over_many_and_then_goes_through_all_waits_a_few_times() -> None:
    reader = _small()
    for index in range(0, 1000, 10):
        reader.read(index)
    before = reader.misses
    for index in range(1000, 2000):
        reader.read(index)
    assert reader.misses - before < 20


def test_large_chunks_are_left_out() -> None:
    large = {20, 40, 41}
    sizes = [1 << 20 if index in large else SIZE for index in range(200)]
    reader = _Reader(_Blobs(sizes))
    for index in range(10):
        reader.read(index)
    for index in range(10, 60):
        if index not in large:
            reader.read(index)
    assert not reader.here & large
    assert 45 in reader.here


def test_large_files_start_no_walk() -> None:
    reader = _Reader(_Blobs([SMALL + 1] * 100))
    for index in range(50):
        reader.read(index)
    assert reader.here == set(range(50))


def test_what_there_was_no_room_for_is_asked_for_again() -> None:
    reader = _Reader(_Blobs([SIZE] * COUNT), room=3)
    for index in range(100):
        reader.read(index)
    assert reader.here >= set(range(100))
    assert reader.misses <= 27


@pytest.mark.parametrize("bad", [5, 2, 0])
def test_a_damaged_record_is_none_of_the_readers_business(bad: int) -> None:
    reader = _Reader(_Blobs([SIZE] * 100, bad=bad))
    for index in (1, 2, 3, 4):
        reader.read(index)
    assert bad not in reader.here or bad in (1, 2, 3, 4)
