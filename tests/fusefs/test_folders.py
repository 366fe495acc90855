"""Small files of one directory that are fetched together when many of them are read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from fixtures.extents import DecodedFiles
from fixtures.smallfiles import SmallFiles, SmallFilesReader
from fusefs.blobfiles import BlobFiles
from fusefs.folders import BEGUN_AT, CREDIT, FREE, FREER, SMALL_FILE
from fusefs.vfs import ROOT, Image, Vfs
from rafs import Bootstrap
from rafs.builder import BuildOptions, build
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget

SIZE = 8192
PER_FOLDER = 60


def _files(folders: int, size: int = SIZE, per_folder: int = PER_FOLDER) -> SmallFiles:
    together = [range(n * per_folder, (n + 1) * per_folder) for n in range(folders)]
    return SmallFiles([size] * (folders * per_folder), folders=together)


def _shuffled(count: int, seed: int = 1) -> list[int]:
    return random.Random(seed).sample(range(count), count)


def _spread(reader: SmallFilesReader, files: SmallFiles, first: int, count: int) -> list[int]:
    """Read *count* files far apart, so that no two are of one folder."""
    places = range(first, first + count * 2 * PER_FOLDER, 2 * PER_FOLDER)
    for index in places:
        reader.read(index)
    return list(places)


def test_a_program_that_reads_few_files_gets_those_alone() -> None:
    reader = SmallFilesReader(_files(40))
    read = [PER_FOLDER * n + place for n in range((BEGUN_AT - 1) // 2) for place in (2, 40)]
    for index in read:
        reader.read(index)
    assert reader.here == set(read)


def test_who_reads_all_of_some_folders_in_no_order_waits_two_or_three_times_for_each() -> None:
    reader = SmallFilesReader(_files(10))
    for index in _shuffled(10 * PER_FOLDER):
        reader.read(index)
    assert reader.misses <= BEGUN_AT + 3 * 10
    assert len(reader.here) == 10 * PER_FOLDER


def test_of_folders_that_nothing_was_read_of_nothing_comes() -> None:
    reader = SmallFilesReader(_files(30))
    for index in _shuffled(10 * PER_FOLDER):
        reader.read(index)
    assert max(reader.here) < 10 * PER_FOLDER


def test_a_folder_that_costs_no_more_than_a_request_comes_with_its_first_file() -> None:
    small, large = range(6000, 6000 + FREE // SIZE), range(7000, 7002 + FREE // SIZE)
    files = SmallFiles([SIZE] * 8000, folders=[small, large])
    reader = SmallFilesReader(files)
    read = _spread(reader, files, 0, BEGUN_AT)
    reader.read(large[0])
    reader.read(small[5])
    assert reader.here == {*read, large[0], *small}


def test_where_most_was_read_larger_folders_come_with_their_first_file() -> None:
    folders = [range(start, start + FREER // SIZE // 2) for start in range(0, 6000, 200)]
    reader = SmallFilesReader(SmallFiles([SIZE * 2] * 6000, folders=folders))
    misses = []
    for folder in folders:
        before = reader.misses
        for index in random.Random(folder.start).sample(folder, len(folder)):
            reader.read(index)
        misses.append(reader.misses - before)
    assert misses[2] > 1
    assert misses[-10:] == [1] * 10


def test_who_reads_a_little_of_every_folder_soon_gets_nothing_along() -> None:
    files = _files(1000, 2048)
    reader = SmallFilesReader(files)
    read = random.Random(1).sample(range(len(files.chunks)), 3000)
    for index in read:
        reader.read(index)
    assert len(reader.here) - len(read) < 2 * CREDIT


def test_files_that_are_not_small_are_neither_brought_nor_counted() -> None:
    sizes = [SIZE, SIZE, SMALL_FILE] * 40
    reader = SmallFilesReader(SmallFiles(sizes, folders=[range(120)]))
    for index in range(2, 120, 3):
        reader.read(index)
    assert len(reader.here) == 40
    for index in [index for index in _shuffled(120) if index % 3 != 2]:
        reader.read(index)
    assert reader.misses < 40 + 2 * BEGUN_AT


def test_a_file_that_lies_alone_is_not_brought() -> None:
    files = SmallFiles([SIZE] * 8000, folders=[[7000, 7001, 7003, 7004, 7006, 7008]])
    reader = SmallFilesReader(files)
    read = _spread(reader, files, 0, BEGUN_AT)
    reader.read(7008)
    assert reader.here == {*read, 7000, 7001, 7003, 7004, 7008}


def test_what_was_missed_before_the_folder_was_known_counts() -> None:
    files = SmallFiles([SIZE] * 60 * 200, folders=[range(n, n + 60) for n in range(0, 12000, 60)])
    reader = SmallFilesReader(files)
    reader.read(30)
    _spread(reader, files, 120, BEGUN_AT)
    reader.read(10)
    assert set(range(60)) <= reader.here


def test_where_a_directory_is_damaged_what_was_known_goes_on_to_count() -> None:
    files = _files(10)
    files.folders_end_badly = True
    reader = SmallFilesReader(files)
    for index in _shuffled(10 * PER_FOLDER):
        reader.read(index)
    assert reader.misses <= BEGUN_AT + 3 * 10


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an image of eight directories of forty files, and its decoded blob."""
    made = tmp_path_factory.mktemp("folders")
    for number in range(8 * 40):
        path = made / f"tree/{number // 40}/{number % 40:02}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(number).randbytes(5000))
    result = build(DirectorySource(made / "tree"), DirectoryTarget(made / "image"), BuildOptions())
    (made / "decoded").mkdir()
    decoded = [random.Random(number).randbytes(5000).ljust(8192, b"\0") for number in range(320)]
    (made / "decoded" / str(result.blob)).write_bytes(b"".join(decoded))
    return made


class _Counting(DecodedFiles):
    """What is wanted along is here at once."""

    def want(self, blob: object, chunks: Sequence[object]) -> int:
        taken = super().want(blob, chunks)  # type: ignore[arg-type]  # passed on as it is
        self.here.update((blob.id, index) for index in self.wanted)  # type: ignore[attr-defined]
        return taken


@pytest.mark.parametrize("driver", ["fuse", "erofs"])
async def test_both_drivers_wait_as_rarely(tree: Path, driver: str) -> None:
    image = Bootstrap.open(tree / "image/image.boot")
    reader = _Counting(tree / "decoded", ready=False)
    shown = image if driver == "fuse" else BlobFiles(image)
    vfs = Vfs(Image("image", shown, reader))
    for number in _shuffled(320):
        if driver == "fuse":
            folder = vfs.lookup(ROOT, b"%d" % (number // 40))
            assert folder is not None
            node, start = vfs.lookup(folder, b"%02d" % (number % 40)), 0
        else:
            node, start = vfs.lookup(ROOT, b"0"), 8192 * number
        assert node is not None
        found = vfs.look(node, start, 5000)
        if found is None:
            found = await vfs.read(node, start, 5000)
        assert bytes(found) == random.Random(number).randbytes(5000)
    assert len(reader.fetched) <= BEGUN_AT + 3 * 8
    image.close()
