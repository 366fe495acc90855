"""``naiad warm`` on a mount."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.rangeserver import RangeServer
from fixtures.weights import safetensors
from rafs.builder import build
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget

pytestmark = pytest.mark.kernel

MODEL = safetensors([(512, 1024)] * 4)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "model").mkdir(parents=True)
    (tree / "model/a.safetensors").write_bytes(MODEL)
    (tree / "other").write_bytes(MODEL[::-1])
    build(DirectorySource(tree), DirectoryTarget(tmp_path / "image"))
    return tmp_path / "image"


@pytest.mark.parametrize("driver", ["fuse", "erofs"])
def test_what_was_warmed_is_read_without_the_origin(naiad: Naiad, image: Path, driver: str) -> None:
    with RangeServer(image) as server:
        mount = naiad.mount(server.url, "--driver", driver, "--prefetch", "none")
        said = naiad.json("warm", "--wait", "--json", mount, mount / "model")
        assert isinstance(said, dict)
        assert (said["files"], said["here_bytes"]) == (1, len(MODEL))
        asked = server.statistics.requests
        assert (mount / "model/a.safetensors").read_bytes() == MODEL
        into_the_next_file = driver == "erofs"
        """Where the kernel's own read-ahead goes, which knows blobs."""
        assert server.statistics.requests <= asked + into_the_next_file
        done = naiad.run("warm", mount)
        assert "2 files" in done.stdout


def test_misuse_is_told(naiad: Naiad, image: Path, tmp_path: Path) -> None:
    mount = naiad.mount(image)
    assert naiad.run("warm", tmp_path, ok=False).returncode == 1
    assert naiad.run("warm", mount, "/etc", ok=False).returncode == 2
    done = naiad.run("warm", mount, "absent", ok=False)
    assert done.returncode == 1
    assert done.stderr == "naiad: absent: not in the image\n"
