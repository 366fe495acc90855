"""Containers from images that are loaded lazily, with containerd as Debian packs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fixtures.containerd import RealContainerd, mounts_below
from fixtures.cri import Kubelet
from fixtures.mounting import until
from fixtures.node import PAUSE, Layer, Node, tar_of

pytestmark = [pytest.mark.kernel, pytest.mark.real]


def read(containerd: RealContainerd, image: str, name: str) -> str:
    """Return the digest of the data as a container sees it."""
    return containerd.container(image, name, "/bin/md5sum", "/data/file").split()[0]


def test_a_lazy_image_is_pulled_without_its_layers_and_runs(
    node: Node, containerd: RealContainerd, lazy: str, digest: str
) -> None:
    done = node.pull("small:lazy")
    assert done.stderr.count("nothing to fetch") == 2
    content = containerd.ctr("content", "ls").splitlines()[1:]
    assert len(content) == 3, "index, manifest and config"
    assert read(containerd, lazy, "one") == digest
    assert len(containerd.snapshots()) == 2
    assert lazy.partition(":lazy")[0] in node.naiad.run("status", node.session).stdout


def test_what_a_container_writes_is_its_own(
    node: Node, containerd: RealContainerd, lazy: str, digest: str
) -> None:
    node.pull("small:lazy")
    script = "echo new > /data/file && echo more > /data/other && cat /data/file /data/other"
    assert containerd.container(lazy, "writer", "/bin/sh", "-c", script) == "new\nmore\n"
    assert read(containerd, lazy, "reader") == digest


def test_an_ordinary_image_runs_through_the_same_snapshotter(
    node: Node, containerd: RealContainerd, shell_tree: Path, tmp_path: Path, digest: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/above").write_text("above")
    layers = [Layer(tar_of(shell_tree)), Layer(tar_of(tmp_path))]
    plain = node.push(layers, "small:plain")
    assert node.pull("small:plain").stderr.count("to fetch and unpack") == 2
    assert read(containerd, plain, "one") == digest
    containerd.ctr("images", "rm", "--sync", plain)
    assert containerd.snapshots() == []
    containerd.ctr("images", "pull", "--plain-http", "--snapshotter", "naiad", plain)
    assert containerd.container(plain, "two", "/bin/cat", "/data/above") == "above"


def test_images_that_share_blobs_are_removed_one_by_one(
    node: Node, containerd: RealContainerd, shell_tree: Path, tmp_path: Path, lazy: str, digest: str
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(shell_tree, tree, symlinks=True)
    (tree / "data/more").write_text("more")
    again = node.build(tree, "small:again", "--chunk-dict", lazy)
    for name in ("small:lazy", "small:again"):
        node.pull(name)
    containerd.ctr("images", "rm", "--sync", lazy)
    assert read(containerd, again, "after") == digest
    assert containerd.container(again, "more", "/bin/cat", "/data/more") == "more"
    containerd.ctr("images", "rm", "--sync", again)
    until(lambda: not mounts_below(node.root / "images"))
    assert list((node.root / "images").iterdir()) == []


def test_the_cache_counts_what_images_use_and_nothing_when_they_are_gone(
    node: Node, containerd: RealContainerd, lazy: str, digest: str
) -> None:
    node.pull("small:lazy")
    assert read(containerd, lazy, "counted") == digest
    folder = node.naiad.cache / "blobs"
    found = node.naiad.json("cache", "ls", "--json")
    assert isinstance(found, list)
    assert sum(one["allocated"] for one in found) == allocated(folder)
    in_use = [one for one in found if one["in_use"]]
    assert sum(one["ready_size"] for one in in_use) == node.image_facts("small")["ready_bytes"]
    containerd.clear()
    until(lambda: not node.naiad.status(node.session)["images"])
    node.naiad.run("cache", "gc")
    assert node.naiad.json("cache", "ls", "--json") == []
    assert list(folder.iterdir()) == []


def allocated(folder: Path) -> int:
    """Return the bytes that the blobs' data takes on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.glob("*.data"))


def test_fifty_containers_at_once_fetch_each_chunk_once(
    node: Node, containerd: RealContainerd, tmp_path: Path, shell_tree: Path, digest: str
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(shell_tree, tree, symlinks=True)
    (tree / "data/other").write_bytes(tmp_path.name.encode() * 100_000)
    image = node.build(tree, "many:lazy")
    node.pull("many:lazy")
    names = [f"many-{number}" for number in range(50)]
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda name: read(containerd, image, name), names))
    assert found == [digest] * 50
    facts = node.image_facts("many")
    sources = facts["sources"]
    assert isinstance(sources, dict)
    assert sources["origin"]["chunks"] <= facts["chunks"]
    assert sources["origin"]["bytes"] == facts["ready_bytes"], "each of them once"


def test_many_clients_make_commit_and_remove_snapshots_at_once(
    node: Node, containerd: RealContainerd
) -> None:
    def work(number: int) -> str:
        said = ""
        for words in (
            ("prepare", f"new{number}"),
            ("commit", f"layer{number}", f"new{number}"),
            ("prepare", f"above{number}", f"layer{number}"),
            ("mounts", "/mnt", f"above{number}"),
            ("info", f"layer{number}"),
            ("rm", f"above{number}"),
            ("rm", f"layer{number}"),
        ):
            said += containerd.ctr("snapshots", "--snapshotter", "naiad", *words)
        return said

    with ThreadPoolExecutor(8) as pool:
        for number, said in enumerate(pool.map(work, range(16))):
            assert "mount -t overlay" in said
            assert f'"layer{number}"' in said
    assert containerd.snapshots() == []
    containerd.collect()  # what is removed there goes here with the next collection
    until(lambda: list((node.root / "snapshots").iterdir()) == [])


def test_a_kubelet_pulls_lazily_and_runs_pods_through_the_snapshotter(
    node: Node,
    containerd: RealContainerd,
    lazy: str,
    shell_tree: Path,
    tmp_path: Path,
    digest: str,
) -> None:
    node.push([Layer(tar_of(shell_tree))], PAUSE, command=["/bin/sleep", "600"])
    with Kubelet(containerd.address, tmp_path) as kubelet:
        kubelet.pull(lazy)
        layers = containerd.ctr("-n", "k8s.io", "content", "ls").splitlines()[1:]
        assert len(layers) == 3, "index, manifest and config"
        container = kubelet.run(lazy, "/bin/sleep", "600")
        assert kubelet.execute(container, "/bin/md5sum", "/data/file").split()[0] == digest
        kubelet.execute(container, "/bin/touch", "/data/written")
    for image in (lazy, f"{node.registry.host}/{PAUSE}"):
        containerd.ctr("-n", "k8s.io", "images", "rm", "--sync", image)


def test_containers_go_on_when_the_sessions_daemon_is_killed(
    node: Node, containerd: RealContainerd, lazy: str, digest: str
) -> None:
    node.pull("small:lazy")
    script = "while [ ! -e /data/end ]; do md5sum /data/file /bin/busybox || exit 1; done"
    process = containerd.start_container(lazy, "loop", script)
    for _ in range(3):
        before = node.daemon()
        node.kill_daemon()
        until(lambda gone=before: node.daemon() != gone)  # type: ignore[misc]
    assert len(set(containerd.end_container(process, "loop"))) == 2


def test_containers_go_on_and_new_ones_come_when_the_snapshotter_is_killed(
    node: Node, containerd: RealContainerd, lazy: str, digest: str
) -> None:
    node.pull("small:lazy")
    script = "while [ ! -e /data/end ]; do md5sum /data/file; sleep 0.02; done"
    process = containerd.start_container(lazy, "loop", script)
    daemon = node.daemon()
    node.kill()
    node.start()
    assert node.daemon() == daemon, "the session goes on"
    containerd.reach_snapshotter()
    assert read(containerd, lazy, "new") == digest
    assert {line.split()[0] for line in containerd.end_container(process, "loop")} == {digest}


def test_a_session_that_was_killed_with_its_supervisor_comes_anew(
    node: Node, containerd: RealContainerd, lazy: str, digest: str
) -> None:
    node.pull("small:lazy")
    assert read(containerd, lazy, "before") == digest
    before = node.naiad.status(node.session)
    for name in ("supervisor", "daemon"):
        pid = before[name]
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        done = node.naiad.run("status", "--json", node.session, ok=False)
        (found,) = json.loads(done.stdout) if done.returncode == 0 else [before]
        return found.get("daemon") not in (None, before["daemon"]) and bool(found.get("images"))

    until(is_back)
    assert read(containerd, lazy, "after") == digest
