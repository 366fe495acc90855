from __future__ import annotations

import random

import pytest

from fixtures.smallfiles import SmallFiles, SmallFilesReader
from fusefs.neighbours import FIRST_WINDOW, LAST_WINDOW, SMALL

COUNT = 4000
SIZE = 8192


def _small() -> SmallFilesReader:
    return SmallFilesReader(SmallFiles([SIZE] * COUNT))


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
    reader = SmallFilesReader(SmallFiles(sizes))
    for index in range(10):
        reader.read(index)
    for index in range(10, 60):
        if index not in large:
            reader.read(index)
    assert not reader.here & large
    assert 45 in reader.here


def test_large_files_start_no_walk() -> None:
    reader = SmallFilesReader(SmallFiles([SMALL + 1] * 100))
    for index in range(50):
        reader.read(index)
    assert reader.here == set(range(50))


def test_what_there_was_no_room_for_is_asked_for_again() -> None:
    reader = SmallFilesReader(SmallFiles([SIZE] * COUNT), room=3)
    for index in range(100):
        reader.read(index)
    assert reader.here >= set(range(100))
    assert reader.misses <= 27


@pytest.mark.parametrize("bad", [5, 2, 0])
def test_a_damaged_record_is_none_of_the_readers_business(bad: int) -> None:
    reader = SmallFilesReader(SmallFiles([SIZE] * 100, bad=bad))
    for index in (1, 2, 3, 4):
        reader.read(index)
    assert bad not in reader.here or bad in (1, 2, 3, 4)
