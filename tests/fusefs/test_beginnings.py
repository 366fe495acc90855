"""What is fetched on behind the beginning of a file."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fixtures.extents import DecodedFiles
from fusefs import beginnings
from fusefs.beginnings import Beginnings
from rafs import Bootstrap
from rafs.builder import BuildOptions, build
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget

CHUNK = 4096
FILES = {"a": 3 * CHUNK + 5, "b": 7, "c": 2 * CHUNK, "d": 2 * CHUNK + 1, "e": 5000 * CHUNK}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("beginnings")
    (made / "tree").mkdir()
    for name, size in FILES.items():
        (made / "tree" / name).write_bytes(random.Random(name).randbytes(size))
    options = BuildOptions(chunk_size=CHUNK)
    result = build(DirectorySource(made / "tree"), DirectoryTarget(made / "image"), options)
    (made / "decoded").mkdir()
    decoded = b"".join(
        (made / "tree" / name).read_bytes().ljust(-(-size // CHUNK) * CHUNK, b"\0")
        for name, size in FILES.items()
    )
    (made / "decoded" / str(result.blob)).write_bytes(decoded)
    return made


@pytest.mark.parametrize(
    ("name", "start", "following"),
    [
        ("a", 0, 3),
        ("a", CHUNK, 0),
        ("b", 0, 0),
        ("c", 0, 3 + 1),  # a file of nothing but whole chunks ends where the next one does
        ("e", 0, beginnings.LIMIT // CHUNK - 1),
        ("e", 100 * CHUNK, 0),
    ],
)
async def test_a_file_whose_beginning_is_missing_is_fetched_on(
    folder: Path, name: str, start: int, following: int
) -> None:
    image = Bootstrap.open(folder / "image/image.boot")
    wanting = DecodedFiles(folder / "decoded", ready=False)
    reader = Beginnings(wanting, image)
    nid = image.lookup(image.root, name.encode())
    assert nid is not None
    extents = image.extents(nid, start, start + 1)
    expected = (folder / "tree" / name).read_bytes()[start : start + 1]
    assert bytes(await reader.read(extents)) == expected
    (extent,) = extents
    assert extent.chunk is not None
    first = extent.chunk.index + 1
    assert wanting.wanted == list(range(first, first + following))
    image.close()


async def test_who_goes_on_behind_what_is_here_gets_more_and_who_jumps_does_not(
    folder: Path,
) -> None:
    image = Bootstrap.open(folder / "image/image.boot")
    wanting = DecodedFiles(folder / "decoded", ready=False)
    reader = Beginnings(wanting, image)
    nid = image.lookup(image.root, b"e")
    assert nid is not None
    for start, following in ((0, True), (100, False), (101, True), (500, False), (499, False)):
        wanting.wanted.clear()
        await reader.read(image.extents(nid, start * CHUNK, (start + 1) * CHUNK))
        assert bool(wanting.wanted) == following, start
    assert wanting.lent == 0
    image.close()
