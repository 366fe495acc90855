"""Bootstraps in files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from chunkstore import Algorithm, Digest
from chunkstore.direct import resident
from fixtures.sketch import Sketch
from rafs import BadImage, Bootstrap
from rafs.tree import Node


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    sketch = Sketch(8192, Algorithm.SHA256)
    sketch.root.children = {b"f": sketch.file(b"data"), b"d": Node(stat.S_IFDIR | 0o755)}
    sketch.save(tmp_path)
    return tmp_path / "image.boot"


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_file_with_the_right_digest_is_opened(boot: Path, algorithm: Algorithm) -> None:
    image = Bootstrap.open(boot, digest=Digest.of(boot.read_bytes(), algorithm))
    assert (image.version, image.chunk_size, image.algorithm) == (6, 8192, Algorithm.SHA256)
    assert (image.inode_count, len(image.blobs)) == (3, 1)
    assert image.chunks(0)[0].digest == Digest.of(b"data", Algorithm.SHA256)
    image.close()


def test_a_file_with_another_digest_is_refused(boot: Path) -> None:
    with pytest.raises(BadImage, match="does not match its digest"):
        Bootstrap.open(boot, digest=Digest.of(b"another"))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.boot").touch()
    with pytest.raises(BadImage, match="empty"):
        Bootstrap.open(tmp_path / "image.boot")


def test_a_missing_file_is_the_systems_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Bootstrap.open(tmp_path / "image.boot")


def test_pages_of_one_that_was_paged_in_stay(tmp_path: Path) -> None:
    sketch = Sketch(8192)
    sketch.root.children = {b"%d" % n: Node(stat.S_IFDIR | 0o755) for n in range(5000)}
    sketch.save(tmp_path)
    boot = tmp_path / "image.boot"
    with boot.open("rb") as file:
        os.fsync(file.fileno())
        size = os.fstat(file.fileno()).st_size
        image = Bootstrap.open(boot)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert not resident(file.fileno(), 0, size)
        image.page_in()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert resident(file.fileno(), 0, size)
        image.close()


def test_one_in_memory_need_not_be_paged_in(boot: Path) -> None:
    Bootstrap.decode(boot.read_bytes()).page_in()


def test_a_closed_bootstrap_holds_no_file(boot: Path) -> None:
    image = Bootstrap.open(boot)
    list(image.children(image.root))
    list(image.chunks(0))
    image.close()
    maps = Path("/proc/self/maps").read_text()
    assert str(boot) not in maps
    descriptors = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert boot not in [path.readlink() for path in descriptors]


def test_a_deleted_file_goes_on_being_read(boot: Path) -> None:
    image = Bootstrap.open(boot)
    boot.unlink()
    assert [entry.name for entry in image.children(image.root)] == [b"d", b"f"]
    image.close()
