"""How many requests the kernel makes for what programs do, and what is fetched for it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fusefs.mounting.erofs import obstacle
from rafs.builder import build
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(obstacle()), reason=obstacle()),
]

MIB = 1 << 20
DRIVERS = ["erofs", "fuse"]


def _image(folder: Path, files: Mapping[str, int]) -> Path:
    """Build an image of files of random bytes, by name and size."""
    tree, rng = folder / "files", random.Random(2)
    for name, size in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(size))
    build(DirectorySource(tree), DirectoryTarget(folder / "image"))
    return folder / "image"


def _requests(naiad: Naiad, mount: Path, kind: str, work: Callable[[], object]) -> int:
    """Return how many requests of a *kind* the daemon answers for *work*."""

    def count() -> int:
        found = naiad.status(mount)[kind]
        assert isinstance(found, int)
        return found

    before = count()
    work()
    return count() - before


def _fewest(naiad: Naiad, mount: Path, kind: str, work: Callable[[], object]) -> int:
    """Return what ``_requests`` does at best: others may empty this machine's caches meanwhile."""
    return min(_requests(naiad, mount, kind, work) for _ in range(3))


def _stat_all(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            Path(place, name).lstat()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_sequential_reader_is_served_in_large_pieces(
    naiad: Naiad, tmp_path: Path, driver: str
) -> None:
    mount = naiad.mount(_image(tmp_path, {"large": 6 * MIB}), "--driver", driver)
    with (mount / "large").open("rb", buffering=0) as file:

        def read() -> None:
            file.seek(0)
            while file.read(MIB):
                pass

        read()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        # The first megabyte comes in small ones: so a reader's pace is found out.
        assert _requests(naiad, mount, "reads", read) <= 10 + 16
        assert _fewest(naiad, mount, "reads", read) == 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_scattered_small_files_are_a_few_requests_each_and_nothing_else_is_fetched(
    naiad: Naiad, tmp_path: Path, driver: str
) -> None:
    names = [f"{number:02d}" for number in range(80)]
    image = _image(tmp_path, dict.fromkeys(names, 160 << 10))
    mount = naiad.mount(image, "--driver", driver, "--prefetch", "none")
    some = random.Random(3).sample(names, 24)
    reads = _requests(naiad, mount, "reads", lambda: [(mount / name).read_bytes() for name in some])
    assert reads <= 4 * len(some)
    said = naiad.status(mount)
    sources = said["sources"]
    assert isinstance(sources, dict)
    assert (sources["origin"]["chunks"], said["pending_chunks"]) == (len(some), 0)


def test_what_a_listing_told_is_not_asked_for_again(naiad: Naiad, tmp_path: Path) -> None:
    names = {f"{folder}/{number}": 10 for folder in range(6) for number in range(20)}
    mount = naiad.mount(_image(tmp_path, names), "--driver", "fuse")
    listed = _requests(naiad, mount, "answered", lambda: _stat_all(mount))
    assert listed <= 1 + 7 * 3, "of each folder: opened, read, read to its end"
    paths = [mount / name for name in names]
    assert _fewest(naiad, mount, "answered", lambda: [path.lstat() for path in paths]) == 0


def test_with_erofs_metadata_is_no_business_of_the_daemon(naiad: Naiad, tmp_path: Path) -> None:
    names = {f"{folder}/{number}": 10 for folder in range(6) for number in range(20)}
    mount = naiad.mount(_image(tmp_path, names), "--driver", "erofs")
    assert _fewest(naiad, mount, "answered", lambda: _stat_all(mount)) == 0
