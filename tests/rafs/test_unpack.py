"""Unpacking: what comes out is what went in, and nothing lands outside the destination."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chunkstore import Buffer, Corrupt
from fixtures.hardtree import make_hard_tree
from fixtures.snapshots import of_directory
from rafs import Bootstrap
from rafs.builder import build
from rafs.errors import BadSource
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget
from rafs.unpack import unpack


def _image(folder: Path, tree: Path) -> tuple[Bootstrap, Callable[[str, int, int], Buffer]]:
    image = folder / "image"
    build(DirectorySource(tree), DirectoryTarget(image))

    def read(blob: str, start: int, stop: int) -> bytes:
        with (image / "blobs" / blob).open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    return Bootstrap.open(image / "image.boot"), read


def test_unpacked_directory_is_its_source(tmp_path: Path) -> None:
    make_hard_tree(tmp_path / "tree", sparse=6 << 20)
    bootstrap, read = _image(tmp_path, tmp_path / "tree")
    written: list[int] = []
    done = unpack(bootstrap, read, tmp_path / "out", written.append)
    assert of_directory(tmp_path / "out") == of_directory(tmp_path / "tree")
    assert sum(written) == done.size
    assert not list(tmp_path.glob(".naiad-unpack-*"))


def test_holes_stay_holes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"here")
    bootstrap, read = _image(tmp_path, tree)
    unpack(bootstrap, read, tmp_path / "out")
    assert (tmp_path / "out" / "sparse").stat().st_blocks * 512 <= 2 << 20


def test_destination_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    bootstrap, read = _image(tmp_path, tmp_path / "tree")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_bytes(b"dear")
    with pytest.raises(BadSource, match="no empty directory"):
        unpack(bootstrap, read, tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_bytes() == b"dear"


def test_damaged_data_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir(mode=0o500)
    (tmp_path / "tree" / "file").write_bytes(b"some bytes that matter")
    bootstrap, _ = _image(tmp_path, tmp_path / "tree")

    def damaged(blob: str, start: int, stop: int) -> bytes:
        return bytes(stop - start)

    with pytest.raises(Corrupt, match="chunk 0"):
        unpack(bootstrap, damaged, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image", "tree"]
