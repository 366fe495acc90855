"""A build that is killed leaves the old image, the new one or none, and the next one cleans up."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.snapshots import of_directory, of_image
from rafs import Bootstrap
from rafs.builder import build
from rafs.imagefile import ImageFile
from rafs.scratch import PREFIX, scratch
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget

_BUILD = """
import os, sys
from pathlib import Path
from rafs.builder import build
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


def test_what_a_living_build_uses_is_left_alone(tmp_path: Path) -> None:
    with scratch(tmp_path) as first, scratch(tmp_path) as second:
        assert first.exists()
        assert second.exists()
    assert not list(tmp_path.iterdir())
