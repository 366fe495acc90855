"""Containers from images that are loaded lazily, with containerd as Debian packs it."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.containerd import RealContainerd, is_installed, mounts_below
from fixtures.mounting import until
from fixtures.node import Layer, Node, running_node, small_root, tar_of

pytestmark = [pytest.mark.kernel, pytest.mark.real]

_DATA = os.urandom(1 << 20)
_SUM = hashlib.md5(_DATA, usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_root(tmp_path_factory.mktemp("tree") / "root", file=_DATA)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, RealContainerd]]:
    if os.geteuid():
        pytest.skip("only root runs containerd")
    assert is_installed(), "scripts/test installs containerd"
    with running_node(tmp_path_factory.mktemp("node")) as made:
        yield made


@pytest.fixture
def node(machine: tuple[Node, RealContainerd]) -> Node:
    return machine[0]


@pytest.fixture
def containerd(machine: tuple[Node, RealContainerd]) -> Iterator[RealContainerd]:
    yield machine[1]
    for image in machine[1].ctr("images", "ls", "-q").split():
        machine[1].ctr("images", "rm", "--sync", image)
    assert snapshots(machine[1]) == []


@pytest.fixture
def lazy(node: Node, tree: Path) -> str:
    return node.build(tree, "small:lazy")


def snapshots(containerd: RealContainerd) -> list[str]:
    lines = containerd.ctr("snapshots", "--snapshotter", "naiad", "ls").splitlines()
    return [line.split()[0] for line in lines[1:] if line.strip()]


def read(containerd: RealContainerd, image: str, name: str) -> str:
    """Return the digest of the data as a container sees it."""
    return containerd.container(image, name, "/bin/md5sum", "/data/file").split()[0]


def test_a_lazy_image_is_pulled_without_its_layers_and_runs(
    node: Node, containerd: RealContainerd, lazy: str
) -> None:
    done = node.pull("small:lazy")
    assert done.stderr.count("nothing to fetch") == 2
    content = containerd.ctr("content", "ls").splitlines()[1:]
    assert len(content) == 3, "index, manifest and config"
    assert read(containerd, lazy, "one") == _SUM
    assert len(snapshots(containerd)) == 2


def test_what_a_container_writes_is_its_own(
    node: Node, containerd: RealContainerd, lazy: str
) -> None:
    node.pull("small:lazy")
    script = "echo new > /data/file && echo more > /data/other && cat /data/file /data/other"
    assert containerd.container(lazy, "writer", "/bin/sh", "-c", script) == "new\nmore\n"
    assert read(containerd, lazy, "reader") == _SUM


def test_an_ordinary_image_runs_through_the_same_snapshotter(
    node: Node, containerd: RealContainerd, tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/above").write_text("above")
    layers = [Layer(tar_of(tree)), Layer(tar_of(tmp_path))]
    plain = node.push(layers, "small:plain")
    assert node.pull("small:plain").stderr.count("to fetch and unpack") == 2
    assert read(containerd, plain, "one") == _SUM
    containerd.ctr("images", "rm", "--sync", plain)
    assert snapshots(containerd) == []
    containerd.ctr("images", "pull", "--plain-http", "--snapshotter", "naiad", plain)
    assert containerd.container(plain, "two", "/bin/cat", "/data/above") == "above"


def test_images_that_share_blobs_are_removed_one_by_one(
    node: Node, containerd: RealContainerd, tree: Path, lazy: str
) -> None:
    again = node.build(tree, "small:again")
    for name in ("small:lazy", "small:again"):
        node.pull(name)
    containerd.ctr("images", "rm", "--sync", lazy)
    assert read(containerd, again, "after") == _SUM
    containerd.ctr("images", "rm", "--sync", again)
    until(lambda: not mounts_below(node.root / "images"))
    assert os.listdir(node.root / "images") == []  # noqa: PTH208


def test_containers_go_on_when_the_sessions_daemon_is_killed(
    node: Node, containerd: RealContainerd, lazy: str
) -> None:
    node.pull("small:lazy")
    script = "while [ ! -e /data/end ]; do md5sum /data/file /bin/busybox || exit 1; done"
    process = start(containerd, lazy, "loop", "/bin/sh", "-c", script)
    for _ in range(3):
        before = node.daemon()
        node.kill_daemon()
        until(lambda gone=before: node.daemon() != gone)  # type: ignore[misc]
    assert len(set(ended(containerd, process, "loop"))) == 2


def start(
    containerd: RealContainerd, image: str, name: str, *command: str
) -> subprocess.Popen[str]:
    words = ["ctr", "--address", str(containerd.address), "run", "--rm", "--snapshotter", "naiad"]
    return subprocess.Popen([*words, image, name, *command], stdout=subprocess.PIPE, text=True)


def ended(containerd: RealContainerd, process: subprocess.Popen[str], name: str) -> list[str]:
    """Have a container end that looks for /data/end, and return what it has printed."""
    containerd.ctr("tasks", "exec", "--exec-id", "end", name, "/bin/touch", "/data/end")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output.splitlines()


def test_containers_go_on_and_new_ones_come_when_the_snapshotter_is_killed(
    node: Node, containerd: RealContainerd, lazy: str
) -> None:
    node.pull("small:lazy")
    script = "while [ ! -e /data/end ]; do md5sum /data/file; sleep 0.02; done"
    process = start(containerd, lazy, "loop", "/bin/sh", "-c", script)
    daemon = node.daemon()
    node.kill()
    node.start()
    assert node.daemon() == daemon, "the session goes on"
    until(
        lambda: (
            containerd.run(
                "snapshots", "--snapshotter", "naiad", "prepare", "p", ok=False
            ).returncode
            == 0
        )
    )
    containerd.ctr("snapshots", "--snapshotter", "naiad", "rm", "p")
    assert read(containerd, lazy, "new") == _SUM
    assert {line.split()[0] for line in ended(containerd, process, "loop")} == {_SUM}
