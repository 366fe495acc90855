"""What is kept of images' metadata: found again, and known when it has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from chunkstore import Algorithm, Digest
from cli.bootstraps import Bootstraps
from fixtures.small import small

LIST = b"where the chunks are" * 100


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Bootstraps]:
    with closing(Bootstraps(tmp_path)) as opened:
        yield opened


@pytest.fixture
def served(kept: Bootstraps, tmp_path: Path) -> Path:
    """Keep a bootstrap and watch it."""
    small().save(tmp_path)
    data = (tmp_path / "image.boot").read_bytes()
    with kept.arriving() as (file, path):
        file.write(data)
        file.flush()
        digest = kept.keep(path, None)
    assert digest == Digest(Algorithm.SHA256, hashlib.sha256(data).digest())
    found = kept.find(digest)
    assert found is not None
    found.close()
    return kept.path(digest)


def test_a_chunk_list_is_found_again_by_its_blob_and_place(kept: Bootstraps) -> None:
    assert kept.kept_list("blob", 4096, len(LIST)) is None
    kept.keep_list("blob", 4096, LIST)
    assert kept.kept_list("blob", 4096, len(LIST)) == LIST
    assert kept.kept_list("blob", 8192, len(LIST)) is None
    assert kept.kept_list("bleb", 4096, len(LIST)) is None
    assert kept.kept_list("blob", 4096, len(LIST) + 1) is None


def test_a_chunk_list_that_rotted_is_not_believed(kept: Bootstraps, tmp_path: Path) -> None:
    kept.keep_list("blob", 4096, LIST)
    (path,) = (tmp_path / "bootstraps").glob("list-*")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert kept.kept_list("blob", 4096, len(LIST)) is None


def test_a_bootstrap_that_is_touched_is_still_the_same(kept: Bootstraps, served: Path) -> None:
    assert kept.altered() is None
    served.touch()
    assert kept.altered() is None
    assert kept.altered(thoroughly=True) is None


def test_a_bootstrap_that_is_written_to_is_altered(kept: Bootstraps, served: Path) -> None:
    with served.open("r+b") as file:
        file.seek(1500)
        file.write(b"\xff")
    assert kept.altered() == served


@pytest.mark.logs("kept bootstrap is damaged")
@pytest.mark.parametrize("left", [-1, 0])
def test_a_damaged_or_empty_bootstrap_is_dropped_and_not_watched(
    kept: Bootstraps, served: Path, left: int
) -> None:
    digest = Digest.parse(served.name.replace("-", ":"))
    served.write_bytes(served.read_bytes()[:left])
    with closing(Bootstraps(served.parents[1])) as other:
        assert other.find(digest) is None
        assert not served.exists()
        assert other.altered() is None
    assert kept.altered() == served
