"""A small tree, and the image of it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rafs.builder import build
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a directory with something of most kinds."""
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "motd").write_text("welcome\n")
    (root / "link").symlink_to("etc/motd")
    (root / "empty").touch()
    (root / "data").write_bytes(random.Random(1).randbytes(3_000_000))
    (root / "twice").write_bytes((root / "data").read_bytes())
    return root


@pytest.fixture
def image(tree: Path, tmp_path: Path) -> Path:
    """Build an image of the tree."""
    build(DirectorySource(tree), DirectoryTarget(tmp_path / "image"))
    return tmp_path / "image"
