"""A small tree and the image of it, a hub with a model, and a machine that runs containers."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.command import Naiad, naiad
from fixtures.containerd import RealContainerd, is_installed
from fixtures.hub import FILES, HubServer, Repository, hub
from fixtures.node import Node, running_node, small_root
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


@pytest.fixture
def hub_server() -> Iterator[HubServer]:
    """Run a hub that has a model."""
    with hub() as running:
        running.repositories["org/model"] = Repository()
        running.repositories["org/model"].commit(FILES)
        yield running


@pytest.fixture
def hub_client(hub_server: HubServer, tmp_path: Path) -> Iterator[Naiad]:
    """Return a naiad for which that hub is the hub."""
    home = str(tmp_path / "home")
    with naiad(tmp_path, HF_ENDPOINT=hub_server.url, HF_HOME=home) as command:
        yield command


@pytest.fixture(scope="session")
def shell_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root directory with a shell, and a megabyte in /data/file."""
    return small_root(tmp_path_factory.mktemp("tree") / "root", file=os.urandom(1 << 20))


@pytest.fixture(scope="session")
def digest(shell_tree: Path) -> str:
    """Return what ``md5sum`` says of /data/file."""
    return hashlib.md5((shell_tree / "data/file").read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, RealContainerd]]:
    """Run a registry, the snapshotter and containerd for all the tests of containers."""
    if os.geteuid():
        pytest.skip("only root runs containerd")
    assert is_installed(), "scripts/test installs containerd"
    with running_node(tmp_path_factory.mktemp("node"), "--read-deadline", "8s") as made:
        yield made


@pytest.fixture(scope="session")
def lazy(machine: tuple[Node, RealContainerd], shell_tree: Path) -> str:
    """Return the reference of a lazy image of the tree."""
    return machine[0].build(shell_tree, "small:lazy")


@pytest.fixture
def node(machine: tuple[Node, RealContainerd]) -> Node:
    """Return what pulls and serves images."""
    return machine[0]


@pytest.fixture
def containerd(machine: tuple[Node, RealContainerd]) -> Iterator[RealContainerd]:
    """Return containerd; nothing may stay of a test's images."""
    yield machine[1]
    machine[1].clear()
