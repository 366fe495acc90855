"""Directories that resist: files that change, vanish or may not be read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rafs import BadSource
from rafs.builder import BuildOptions, build
from rafs.packer import Packer
from rafs.sources.directory import DirectorySource, _Folder
from rafs.sources.source import Harvest
from rafs.targets import DirectoryTarget
from rafs.tree import Node


class Meddled(DirectorySource):
    """A directory that somebody changes between the look and the reading."""

    def __init__(self, root: Path, meddle: Callable[[], object]) -> None:
        super().__init__(root)
        self._meddle = meddle

    def read(self, packer: Packer) -> Harvest:
        """Meddle, then read."""
        self._meddle()
        return super().read(packer)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def rewrite(path: Path) -> None:
    status = path.stat()
    path.write_bytes(b"y" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def swap(path: Path) -> None:
    (path.parent / "new").write_bytes(path.read_bytes())
    (path.parent / "new").replace(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "small").write_bytes(b"x" * 1000)
    (tree / "large").write_bytes(os.urandom(2_000_000))
    return tree


@pytest.mark.parametrize("meddle", [grow, rewrite, swap, os.truncate, Path.unlink])
@pytest.mark.parametrize("name", ["small", "large"])
@pytest.mark.parametrize("helped", [False, True])
def test_a_file_that_changes_is_an_error_that_names_it(
    tree: Path,
    meddle: Callable[..., object],
    name: str,
    helped: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if helped:
        monkeypatch.setattr("rafs.sources.helpers.MANY", 1)
    path = tree / name
    arguments = (path, 10) if meddle is os.truncate else (path,)
    source = Meddled(tree, lambda: meddle(*arguments))
    image = tree.parent / "image"
    with pytest.raises(BadSource, match=str(path)):
        build(source, DirectoryTarget(image), BuildOptions(chunk_size=4096))
    assert not image.exists()


class Vanishing(DirectorySource):
    """A directory of which the file *gone* goes while it is walked."""

    def __init__(self, root: Path, gone: Path) -> None:
        super().__init__(root)
        self._gone = gone

    def _child(self, folder: _Folder, name: bytes, status: os.stat_result) -> Node | None:
        self._gone.unlink(missing_ok=True)
        return super()._child(folder, name, status)


def test_a_file_that_vanishes_before_it_is_looked_at_is_named_with_its_folder(tree: Path) -> None:
    source = Vanishing(tree, tree / "small")
    with pytest.raises(BadSource, match=f"{tree}/small: No such file"):
        build(source, DirectoryTarget(tree.parent / "image"))


def test_a_folder_that_vanishes_is_an_error_that_names_it(tree: Path) -> None:
    inner = tree / "inner"
    inner.mkdir()
    (inner / "file").write_bytes(b"x")
    source = Meddled(tree, lambda: inner.rename(tree / "elsewhere"))
    with pytest.raises(BadSource, match="inner"):
        build(source, DirectoryTarget(tree.parent / "image"))


@pytest.mark.parametrize("missing", ["nothing", "small"])
def test_what_is_no_directory_is_refused(tree: Path, missing: str) -> None:
    with pytest.raises(BadSource, match=missing):
        build(DirectorySource(tree / missing), DirectoryTarget(tree.parent / "image"))


def test_a_target_inside_the_source_is_refused(tree: Path) -> None:
    with pytest.raises(BadSource, match="inside"):
        build(DirectorySource(tree), DirectoryTarget(tree / "image"))


_AS_NOBODY = """
import os, sys
from pathlib import Path
from rafs.builder import build
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget
os.setgid(65534)
os.setuid(65534)
try:
    build(DirectorySource(Path(sys.argv[1])), DirectoryTarget(Path(sys.argv[2])))
except Exception as exc:
    print(type(exc).__name__, exc)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("name", ["secret", "hidden/folder"])
def test_what_may_not_be_read_is_an_error_that_names_it(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    place = tmp_path_factory.mktemp("open")
    for folder in (place, place.parent, place.parent.parent):
        folder.chmod(0o755)
    path = place / "tree" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    path.chmod(0)
    if path.parent.name == "hidden":
        path.parent.chmod(0)
    (place / "image").mkdir()
    os.chown(place / "image", 65534, 65534)
    said = _run(_AS_NOBODY, str(place / "tree"), str(place / "image"))
    assert said.startswith("BadSource")
    assert str(path if name == "secret" else path.parent) in said
    assert "Permission denied" in said


def _run(program: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
