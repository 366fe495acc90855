"""Unpacking: what comes out of an image is what went in, and nothing goes anywhere else."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from chunkstore import Buffer, Corrupt, Extent
from fixtures.hardtree import make_hard_tree
from fixtures.localblobs import LocalBlobs
from fixtures.sketch import Sketch
from fixtures.snapshots import of_directory, of_image
from rafs import BadImage, Bootstrap
from rafs.builder import build
from rafs.sources.directory import DirectorySource
from rafs.sources.tarball import TarSource
from rafs.targets import DirectoryTarget
from rafs.tree import Node
from rafs.unpack import unpack
from rafs.untar import unpack_tar


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a hard tree and its image."""
    place = tmp_path_factory.mktemp("hard")
    make_hard_tree(place / "tree")
    build(DirectorySource(place / "tree"), DirectoryTarget(place / "image"))
    return place / "tree", place / "image"


def opened(image: Path) -> closing[Bootstrap]:
    return closing(Bootstrap.open(image / "image.boot"))


def unpacked(image: Path, destination: Path) -> list[str]:
    with opened(image) as bootstrap:
        return unpack(bootstrap, LocalBlobs(image / "blobs"), destination)


def archive_of(image: Path) -> bytes:
    out = io.BytesIO()
    with opened(image) as bootstrap:
        assert unpack_tar(bootstrap, LocalBlobs(image / "blobs"), out.write) == []
    return out.getvalue()


def test_a_directory_comes_out_as_it_went_in(hard: tuple[Path, Path], tmp_path: Path) -> None:
    tree, image = hard
    assert unpacked(image, tmp_path / "out") == []
    assert of_directory(tmp_path / "out") == of_directory(tree)


def test_gnu_tar_extracts_what_went_in(hard: tuple[Path, Path], tmp_path: Path) -> None:
    tree, image = hard
    out = tmp_path / "out"
    out.mkdir()
    how = ("--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "-C", str(out))
    subprocess.run(["tar", "-xf", "-", *how], input=archive_of(image), check=True, timeout=60)
    assert of_directory(out) == of_directory(tree)
    assert (out / "sparse").stat().st_blocks < (1 << 20) // 512


def test_an_archive_makes_the_same_tree_again(hard: tuple[Path, Path], tmp_path: Path) -> None:
    tree, image = hard
    archive = tmp_path / "a.tar"
    archive.write_bytes(archive_of(image))
    assert archive.read_bytes() == archive_of(image)
    build(TarSource(archive), DirectoryTarget(tmp_path / "again"))
    assert of_image(tmp_path / "again") == of_directory(tree)


def test_holes_stay_holes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "sparse").open("wb") as file:
        file.truncate(5 << 30)
        file.seek(3 << 30)
        file.write(b"in the middle")
    build(DirectorySource(tree), DirectoryTarget(tmp_path / "image"))
    with opened(tmp_path / "image") as image:
        reader = LocalBlobs(tmp_path / "image" / "blobs")
        unpack(image, reader, tmp_path / "out")
        assert reader.reads == 1
    status = (tmp_path / "out" / "sparse").stat()
    assert status.st_size == 5 << 30
    assert status.st_blocks * 512 <= 2 << 20
    assert len(archive_of(tmp_path / "image")) < 2 << 20


def test_what_is_there_stays(hard: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="not empty"):
        unpacked(hard[1], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_empty_directory_is_filled(hard: tuple[Path, Path], tmp_path: Path) -> None:
    unpacked(hard[1], tmp_path)
    assert of_directory(tmp_path) == of_directory(hard[0])


@pytest.mark.parametrize("existed", [False, True])
def test_a_chunk_that_is_damaged_leaves_nothing(
    hard: tuple[Path, Path], tmp_path: Path, existed: bool
) -> None:
    class Broken:
        def read(self, extents: Sequence[Extent]) -> Buffer:
            """Fail."""
            raise Corrupt("a chunk")

    out = tmp_path / "out"
    if existed:
        out.mkdir()
    with opened(hard[1]) as image, pytest.raises(Corrupt):
        unpack(image, Broken(), out)
    assert list(tmp_path.rglob("*")) == ([out] if existed else [])


@pytest.mark.parametrize("name", [b"../..", b"/etc", b"a/b"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: bytes) -> None:
    sketch = Sketch()
    stand_in = b"@" * len(name)
    sketch.root.children[stand_in] = Node(stat.S_IFDIR | 0o755)
    data = sketch.bootstrap()
    assert data.count(stand_in) == 1
    image = Bootstrap.decode(data.replace(stand_in, name))
    with pytest.raises(BadImage):
        unpack(image, LocalBlobs(tmp_path), tmp_path / "out" / "side")
    with pytest.raises(BadImage):
        unpack_tar(image, LocalBlobs(tmp_path), lambda _: None)
    assert not (tmp_path / "out" / "side").exists()


def test_a_symlink_is_no_way_out(tmp_path: Path) -> None:
    sketch = Sketch()
    victim = tmp_path / "victim"
    victim.mkdir()
    target = bytes(victim)
    sketch.root.children[b"link"] = Node(stat.S_IFLNK | 0o777, target=target)
    sketch.root.children[b"lime"] = folder = Node(stat.S_IFDIR | 0o755)
    folder.children[b"file"] = Node(stat.S_IFREG | 0o644)
    image = Bootstrap.decode(sketch.bootstrap().replace(b"lime", b"link"))
    with pytest.raises((BadImage, OSError)):
        unpack(image, LocalBlobs(tmp_path), tmp_path / "out")
    assert not list(victim.iterdir())


def test_a_directory_in_itself_is_refused(tmp_path: Path) -> None:
    sketch = Sketch()
    sketch.root.children[b"inner"] = Node(stat.S_IFDIR | 0o755)
    data = sketch.bootstrap()
    image = Bootstrap.decode(data)
    inner = image.lookup(image.root, b"inner")
    assert inner is not None
    entry, loop = inner.to_bytes(8, "little"), image.root.to_bytes(8, "little")
    place = data.index(entry, 2 * 4096)
    looped = data[:place] + loop + data[place + 8 :]
    with pytest.raises(BadImage):
        unpack(Bootstrap.decode(looped), LocalBlobs(tmp_path), tmp_path / "out")


_AS_NOBODY = """
import os, sys
from contextlib import closing
from pathlib import Path
from fixtures.localblobs import LocalBlobs
from rafs import Bootstrap
from rafs.unpack import unpack
os.setgid(65534)
os.setuid(65534)
image, out = map(Path, sys.argv[1:])
with closing(Bootstrap.open(image / "image.boot")) as bootstrap:
    print(*unpack(bootstrap, LocalBlobs(image / "blobs"), out), sep="\\n")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_others_may_not_do_is_said_once(
    hard: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("open")
    for folder in (place, place.parent, place.parent.parent, hard[1].parent, hard[1]):
        folder.chmod(0o755)
    place.chmod(0o777)
    said = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, str(hard[1]), str(place / "out")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.splitlines()
    assert sorted(word.split()[-1] for word in said) == ["devices", "owners", "xattrs"]
    want = of_directory(hard[0])
    seen = of_directory(place / "out")
    assert set(want) - set(seen) == {b"devices/null", b"devices/disk"}
    for path, what in seen.items():
        expected = replace(want[path], owner=(65534, 65534), mode=what.mode)
        kept = {name: value for name, value in expected.xattrs.items() if name.startswith(b"user.")}
        assert what == replace(expected, xattrs=kept)
        assert what.mode == want[path].mode & ~(stat.S_ISUID | stat.S_ISGID)


def test_progress_counts_the_data(hard: tuple[Path, Path], tmp_path: Path) -> None:
    told: list[int] = []
    with opened(hard[1]) as image:
        unpack(image, LocalBlobs(hard[1] / "blobs"), tmp_path / "out", told.append)
    assert told == sorted(told)
    assert told[-1] > 5_000_000
