"""The check of a local image beside the daemon's imports, as a process without threads has it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chunkstore import Algorithm, Digest
from cli.bootstraps import Bootstraps
from fixtures.sketch import Sketch

_ASK = """
import os, sys
from pathlib import Path
from chunkstore import Digest
from cli.precheck import Precheck
if sys.argv[4] == "apart":
    handles = Precheck.apart(sys.argv[1], Path(sys.argv[2]))
    precheck = Precheck(None, handles[0]) if handles else None
else:
    precheck = Precheck.begin(sys.argv[1], Path(sys.argv[2]))
print(None if precheck is None else precheck.vouches_for(Digest.parse(sys.argv[3])))
try:
    print(os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("nobody left")
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    sketch = Sketch(8192)
    sketch.root.children = {b"f": sketch.file(b"data")}
    folder = tmp_path / "image"
    folder.mkdir()
    sketch.save(folder)
    return folder


def _digest(image: Path) -> Digest:
    return Digest.of((image / "image.boot").read_bytes(), Algorithm.SHA256)


def _asked(image: Path, cache: Path, digest: Digest) -> str:
    told = set()
    for whose in ("own", "apart"):
        words = [sys.executable, "-c", _ASK, str(image), str(cache), str(digest), whose]
        said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
        answer, rest = said.splitlines()
        assert rest == "nobody left"
        told.add(answer)
    assert len(told) == 1, "whoever asks for it"
    return told.pop()


def test_a_sound_image_is_vouched_for_by_its_digest_alone(image: Path, tmp_path: Path) -> None:
    assert _asked(image, tmp_path / "cache", _digest(image)) == "True"
    other = Digest.of(b"another", Algorithm.SHA256)
    assert _asked(image, tmp_path / "cache", other) == "False"


def test_a_faulty_image_is_not_vouched_for(image: Path, tmp_path: Path) -> None:
    boot = image / "image.boot"
    boot.write_bytes(boot.read_bytes() + b"half a block")
    assert _asked(image, tmp_path / "cache", _digest(image)) == "False"
    boot.write_bytes(b"no bootstrap at all")
    assert _asked(image, tmp_path / "cache", _digest(image)) == "False"


def test_what_was_checked_before_is_not_checked_again(image: Path, tmp_path: Path) -> None:
    kept = Bootstraps(tmp_path)
    kept.note_checked(_digest(image))
    assert kept.is_checked(_digest(image))
    assert _asked(image, tmp_path, _digest(image)) == "False"


@pytest.mark.parametrize("name", ["absent", "http://127.0.0.1:1/image"])
def test_an_image_elsewhere_is_left_to_the_daemon(tmp_path: Path, name: str) -> None:
    assert _asked(Path(name), tmp_path, Digest.of(b"")) == "None"
