"""Snapshotters that may not start, beside one that runs or alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.containerd import mounts_below
from fixtures.mounting import until
from fixtures.node import Node
from fixtures.registry import RealRegistry
from fixtures.smalldisk import small_disk
from fusefs.containers.claims import control_of

pytestmark = pytest.mark.kernel


@pytest.fixture
def node(naiad: Naiad, tmp_path: Path) -> Iterator[Node]:
    """Run a snapshotter; its registry is nowhere."""
    if os.geteuid():
        pytest.skip("only root mounts for containers")
    made = Node(naiad, RealRegistry("localhost:1", tmp_path, 0), tmp_path, ())
    try:
        made.start()
        yield made
    finally:
        made.end()


def state_of(node: Node) -> object:
    """Return what another snapshotter could harm."""
    sockets = [path.stat().st_ino for path in (node.address, control_of(node.address))]
    return sockets, mounts_below(node.root), node.daemon()


def refusal(naiad: Naiad, root: Path, address: Path, *options: str | Path) -> str:
    """Return the one line that a snapshotter fails with."""
    done = naiad.run("snapshotter", "--root", root, "--address", address, *options, ok=False)
    assert done.returncode == 1
    # gRPC's library has words of its own about a socket that it cannot have.
    (line,) = (said for said in done.stderr.splitlines() if said.startswith("naiad: "))
    return line


def test_a_second_snapshotter_is_refused_in_one_line_and_harms_nothing(
    node: Node, naiad: Naiad, tmp_path: Path
) -> None:
    before = state_of(node)
    used = f"{node.root}: another snapshotter uses it"
    elsewhere = tmp_path / "elsewhere"
    assert refusal(naiad, node.root, node.address).endswith(used)
    assert refusal(naiad, node.root, node.address, "--state", elsewhere).endswith(used)
    assert refusal(naiad, node.root, tmp_path / "other.sock").endswith(used)
    taken = f"{node.address}: somebody listens there already"
    assert refusal(naiad, tmp_path / "root", node.address).endswith(taken)
    assert mounts_below(tmp_path / "root") == []
    assert state_of(node) == before
    said = node.pull("none:1", ok=False).stderr
    assert "no naiad snapshotter listens" not in said
    assert "localhost:1" in said or "containerd" in said


def test_a_snapshotter_that_cannot_listen_mounts_nothing(naiad: Naiad, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in refusal(naiad, tmp_path / "root", tmp_path / "file/x.sock")
    assert mounts_below(tmp_path / "root") == []
    assert not (tmp_path / "root/metadata.db").exists()


def test_a_snapshotter_whose_socket_has_no_room_leaves_no_session(
    naiad: Naiad, tmp_path: Path
) -> None:
    if os.geteuid():
        pytest.skip("only root mounts for containers")
    for files in (2, 3):  # room for folder and lock, and for the socket of pulls
        root, disk = tmp_path / f"root{files}", tmp_path / f"disk{files}"
        with small_disk(disk, "1m", files):
            said = refusal(naiad, root, disk / "naiad.sock")
            assert [path.name for path in disk.glob("*.sock*")] == ["naiad.sock.lock"]
        assert str(disk) in said
        assert mounts_below(root) == []
        assert not list(naiad.state.glob("*/mount.json"))


def test_the_folder_of_the_address_is_made(node: Node) -> None:
    node.stop()
    node.address = node.address.with_name("new") / "deep/naiad.sock"
    node.start()
    until(control_of(node.address).is_socket)
    node.stop()
    assert [path.name for path in node.address.parent.iterdir()] == ["naiad.sock.lock"]


def test_one_whose_cache_is_open_to_others_is_refused_in_one_line(
    naiad: Naiad, tmp_path: Path
) -> None:
    if os.geteuid():
        pytest.skip("only root mounts for containers")
    cache = tmp_path / "open"
    cache.mkdir(mode=0o755)
    root, address = tmp_path / "root", tmp_path / "naiad.sock"
    said = refusal(naiad, root, address, "--cache", cache)
    assert f"cache folder {cache} is open to others" in said
    assert not mounts_below(root)
