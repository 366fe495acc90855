"""A build that is killed leaves the old image, the new one or none, and the next one cleans up."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fixtures.smalldisk import small_disk
from fixtures.snapshots import of_directory, of_image
from rafs import Bootstrap
from rafs.builder import build
from rafs.errors import BadSource
from rafs.imagefile import ImageFile
from rafs.scratch import PREFIX, scratch
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget

_BUILD = """
import os, sys
from pathlib import Path
from rafs.builder import build
from rafs.errors import BadSource
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget

source, target, event, number = sys.argv[1:]
left = int(number)

def count(name, arguments):
    global left
    if name == event:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)

sys.addaudithook(count)
build(DirectorySource(Path(source)), DirectoryTarget(Path(target)))
"""


def killed_build(source: Path, target: Path, event: str, number: int) -> bool:
    """Build, and kill that just before *event* happens for the time *number*, counted from 0."""
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, str(source), str(target), event, str(number)], timeout=60
    )
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0


def complete(image: Path) -> bool:
    """Check that whatever is there is whole; say whether it is an image."""
    blobs = image / "blobs"
    for blob in blobs.iterdir() if blobs.exists() else ():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    if not (image / "image.boot").exists():
        assert not (image / "image.json").exists()
        return False
    data = (image / "image.boot").read_bytes()
    if (image / "image.json").exists():
        facts = ImageFile.decode((image / "image.json").read_bytes())
        assert facts.digest.matches(data)
    for blob_facts in Bootstrap.decode(data).blobs:
        assert (blobs / blob_facts.id).exists()
    return True


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    found = []
    for name in ("old", "new"):
        tree = tmp_path / name
        tree.mkdir()
        for number in range(20):
            (tree / f"file-{number}").write_bytes(name.encode() * 5000 * number)
        found.append(tree)
    return found[0], found[1]


@pytest.mark.parametrize("event", ["open", "os.rename", "os.remove"])
@pytest.mark.parametrize("rebuilt", [False, True])
def test_killed_anywhere_it_leaves_no_half(
    trees: tuple[Path, Path], tmp_path: Path, event: str, rebuilt: bool
) -> None:
    old, new = trees
    image = tmp_path / "image"
    if rebuilt:
        build(DirectorySource(old), DirectoryTarget(image))
    number = step = 0
    while killed_build(new, image, event, number):
        if complete(image):
            assert of_image(image) in (of_directory(old), of_directory(new))
        else:
            assert not rebuilt
        step += 1
        number += 1 if event != "open" else 25
    assert step >= 1 or event == "os.remove"
    assert of_image(image) == of_directory(new)
    assert not list(image.glob(f"{PREFIX}*"))


_BUILD_AND_DIE = """
import os, sys
from pathlib import Path
from rafs.builder import build
from rafs.errors import BadSource
from rafs.sources import helpers
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget

helpers.MANY = 1
source, target, noted = map(Path, sys.argv[1:])

def die(done, total):
    children = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    noted.write_text(" ".join(children))
    os.kill(os.getpid(), 9)

build(DirectorySource(source), DirectoryTarget(target), progress=die)
"""


def test_helpers_end_with_the_build_that_started_them(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    noted = tmp_path / "noted"
    arguments = [str(trees[0]), str(tmp_path / "image"), str(noted)]
    done = subprocess.run([sys.executable, "-c", _BUILD_AND_DIE, *arguments], timeout=60)
    assert done.returncode == -signal.SIGKILL
    helpers = noted.read_text().split()
    assert helpers
    deadline = time.monotonic() + 20
    while any(alive(int(helper)) for helper in helpers):
        assert time.monotonic() < deadline


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


_KILL_HELPERS = """
import os, sys
from pathlib import Path
from rafs.builder import BuildOptions, build
from rafs.sources import helpers
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget

helpers.MANY = 1

def kill(done, total):
    for path in Path("/proc/self/task").glob("*/children"):
        for child in path.read_text().split():
            os.kill(int(child), 9)

try:
    ends = DirectorySource(Path(sys.argv[1])), DirectoryTarget(Path(sys.argv[2]))
    build(*ends, BuildOptions(chunk_size=1 << 20), kill)
except OSError as exc:
    print(exc)
"""


def test_a_helper_that_dies_ends_the_build_with_a_word(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(40):
        (tree / f"file-{number}").write_bytes(bytes([number]) * 900_000)
    done = subprocess.run(
        [sys.executable, "-c", _KILL_HELPERS, str(tree), str(tmp_path / "image")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "helper process" in done.stdout or "Broken pipe" in done.stdout
    assert not (tmp_path / "image").exists()


def test_a_failed_build_takes_away_the_folders_that_it_made(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with pytest.raises(BadSource), scratch(tmp_path / "kept" / "new" / "image"):
        raise BadSource("no")
    assert not list((tmp_path / "kept").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have a small disk")
def test_a_build_onto_a_full_disk_says_where(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(os.urandom(4 << 20))
    image = tmp_path / "disk" / "image"
    with small_disk(tmp_path / "disk", "2m"):
        with pytest.raises(OSError, match=f"No space left on device: '{image}'"):
            build(DirectorySource(tmp_path / "source"), DirectoryTarget(image))
        assert not image.exists()


def test_a_failed_build_leaves_what_others_put_there(tmp_path: Path) -> None:
    def fail() -> None:
        with scratch(tmp_path / "new" / "image"):
            (tmp_path / "new" / "other").touch()
            raise BadSource("no")

    with pytest.raises(BadSource):
        fail()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["other"]


def test_builds_that_end_together_leave_the_image_of_one(tmp_path: Path) -> None:
    sources = [tmp_path / name for name in ("one", "other")]
    for source in sources:
        source.mkdir()
        (source / "file").write_text(source.name)
    with ThreadPoolExecutor() as pool:
        for _ in range(20):
            target = DirectoryTarget(tmp_path / "image")
            list(pool.map(build, map(DirectorySource, sources), [target] * len(sources)))
            assert complete(tmp_path / "image")


def test_what_a_living_build_uses_is_left_alone(tmp_path: Path) -> None:
    with scratch(tmp_path) as first, scratch(tmp_path) as second:
        assert first.exists()
        assert second.exists()
    assert not list(tmp_path.iterdir())
