"""Containers of lazily loaded images when something fails: registries, disks, daemons, liars."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.containerd import RealContainerd
from fixtures.node import Layer, Node, running_node, tar_of
from fixtures.registry import PASSWORD, USER, RealRegistry, running_registry
from fixtures.smalldisk import small_disk

pytestmark = [pytest.mark.kernel, pytest.mark.real]

_MD5 = ("/bin/md5sum", "/data/file")


@pytest.fixture
def other(tmp_path: Path) -> Iterator[RealRegistry]:
    """Run a registry of the test's own."""
    with running_registry(tmp_path / "other") as made:
        yield made


@pytest.fixture
def changed_tree(tmp_path: Path, shell_tree: Path) -> Path:
    """Return the tree with something in it that no other test has."""
    tree = tmp_path / "tree"
    shutil.copytree(shell_tree, tree, symlinks=True)
    (tree / "data/own").write_bytes(os.urandom(1000))
    return tree


@contextmanager
def paused(registry: RealRegistry) -> Iterator[None]:
    """Have a registry answer nothing in the block."""
    os.kill(registry.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(registry.pid, signal.SIGCONT)


def build(node: Node, tree: Path, registry: RealRegistry, *options: str) -> str:
    image = f"{registry.host}/app:lazy"
    node.naiad.run("build", "--plain-http", *options, tree, image)
    return image


def run(containerd: RealContainerd, image: str, name: str, *command: str) -> tuple[int, str]:
    words = ("run", "--rm", "--snapshotter", "naiad", image, name, *command)
    done = containerd.run(*words, ok=False)
    print(done.stderr)  # noqa: T201  # shown where the test fails
    return done.returncode, done.stdout


def test_a_registry_that_is_away_is_one_clear_line_and_leaves_nothing(
    node: Node, containerd: RealContainerd, shell_tree: Path, tmp_path: Path
) -> None:
    with running_registry(tmp_path / "gone") as registry:
        image = build(node, shell_tree, registry)
    done = node.pull_from(image, ok=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert registry.host in done.stderr
    assert containerd.snapshots() == []
    assert containerd.ctr("leases", "ls", "-q") == ""


def test_a_registry_that_hangs_fails_reads_in_time_and_disturbs_no_other_image(
    node: Node,
    containerd: RealContainerd,
    changed_tree: Path,
    other: RealRegistry,
    lazy: str,
    digest: str,
) -> None:
    node.pull("small:lazy")
    (changed_tree / "data/late").write_bytes(os.urandom(24 << 20))
    image = build(node, changed_tree, other)
    node.pull_from(image)
    assert run(containerd, image, "first", "/bin/true") == (0, "")
    with paused(other):
        code, said = run(containerd, image, "stuck", "/bin/md5sum", "/data/late")
        assert (code != 0, said) == (True, "")
        assert run(containerd, lazy, "else", *_MD5) == (0, f"{digest}  /data/file\n")
    code, said = 1, ""
    for attempt in range(8):  # for a moment, who asks again gets the same answer
        code, said = run(containerd, image, f"again{attempt}", "/bin/md5sum", "/data/late")
        if code == 0:
            break
    assert (code, len(said.split()[0])) == (0, 32)


def test_refused_credentials_are_said_and_good_ones_are_kept_nowhere(
    node: Node, containerd: RealContainerd, shell_tree: Path, tmp_path: Path, digest: str
) -> None:
    with running_registry(tmp_path / "closed", password=True) as registry:
        told = {"NAIAD_REGISTRY_USER": USER, "NAIAD_REGISTRY_PASSWORD": PASSWORD}
        node.naiad.environment.update(told)
        image = build(node, shell_tree, registry)
        for name in told:
            del node.naiad.environment[name]
        for user in ([], ["--user", f"{USER}:wrong"]):
            done = node.pull_from(image, *user, ok=False)
            assert done.returncode == 1
            assert "password" in done.stderr or "credential" in done.stderr
        node.pull_from(image, "--user", f"{USER}:{PASSWORD}")
        assert run(containerd, image, "in", *_MD5) == (0, f"{digest}  /data/file\n")
        node.kill_daemon()
        drop_caches()
        assert run(containerd, image, "in2", *_MD5) == (0, f"{digest}  /data/file\n")
        for folder in (node.root, node.naiad.state, node.naiad.cache, containerd.folder):
            assert not holds(folder, PASSWORD.encode() + b'"')
            assert not holds(folder, f"{USER}:{PASSWORD}".encode())
        assert PASSWORD not in node.log.read_text()
        containerd.clear()


def drop_caches() -> None:
    Path("/proc/sys/vm/drop_caches").write_text("3")


def holds(folder: Path, secret: bytes) -> bool:
    words = ["grep", "-rlaF", "--devices=skip", "--exclude-dir=session", "--exclude-dir=images"]
    done = subprocess.run(
        [*words, "-e", secret.decode(), str(folder)], capture_output=True, check=False
    )
    return done.returncode == 0


def test_a_bootstrap_that_fails_its_digest_is_not_mounted(
    node: Node, containerd: RealContainerd, changed_tree: Path, other: RealRegistry
) -> None:
    image = build(node, changed_tree, other)
    for path in other.storage.rglob("data"):
        if path.stat().st_size < 50_000 and path.read_bytes()[:2] == b"\x1f\x8b":
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    done = node.pull_from(image, ok=False)
    assert done.returncode == 1
    assert "hash" in done.stderr
    containerd.collect()
    assert containerd.snapshots() == []


def test_an_image_that_claims_anothers_layer_cannot_take_its_place(
    node: Node, containerd: RealContainerd, shell_tree: Path, digest: str
) -> None:
    layer = Layer(tar_of(shell_tree))
    chain = f"sha256:{hashlib.sha256(layer.data).hexdigest()}"
    mark = {"containerd.io/snapshot/nydus-blob": "true"}
    last = {"containerd.io/snapshot/nydus-bootstrap": "true"}
    liars: list[tuple[str, Sequence[Layer], Sequence[str]]] = [
        ("other", [Layer(b"x" * 1024, mark), Layer(b"y" * 1024, last)], [chain, chain]),
        ("same", [Layer(layer.data, mark), Layer(b"y" * 1024, last)], [chain, chain]),
        ("bootstrap", [Layer(b"y" * 1024, last)], [chain]),
    ]
    for name, layers, claimed in liars:
        node.push(layers, f"liar:{name}", claimed)
        assert node.pull(f"liar:{name}", ok=False).returncode == 1
    containerd.collect()
    assert containerd.snapshots() == []
    image = node.push([layer], "victim:plain")
    node.pull("victim:plain")
    assert run(containerd, image, "victim", *_MD5) == (0, f"{digest}  /data/file\n")


def test_an_annotation_makes_no_ordinary_layer_a_lazy_one(
    node: Node, containerd: RealContainerd, shell_tree: Path, digest: str
) -> None:
    mark = {"containerd.io/snapshot/nydus-blob": "true"}
    image = node.push([Layer(tar_of(shell_tree) + bytes(512), mark)], "marked:plain")
    node.pull("marked:plain")
    code, said = run(containerd, image, "marked", *_MD5)
    assert (code, said) in ((0, f"{digest}  /data/file\n"), (1, ""))


def test_containerd_may_be_killed_and_its_containers_go_on(
    node: Node, containerd: RealContainerd, lazy: str, digest: str
) -> None:
    node.pull("small:lazy")
    script = "while [ ! -e /data/end ]; do md5sum /data/file; sleep 0.02; done > /data/log"
    containerd.ctr(*("run", "-d", "--snapshotter", "naiad", lazy, "loop", "/bin/sh", "-c", script))
    containerd.kill()
    containerd.start()
    assert run(containerd, lazy, "new", *_MD5) == (0, f"{digest}  /data/file\n")
    words = ("tasks", "exec", "--exec-id", "look", "loop", "/bin/sh", "-c")
    lines = containerd.ctr(*words, "sort -u /data/log || cat /data/log").splitlines()
    assert {line.split()[0] for line in lines} == {digest}
    containerd.ctr("tasks", "rm", "-f", "loop")
    containerd.ctr("containers", "rm", "loop")


def test_full_disks_under_the_cache_and_the_upper_layers_are_survived(
    tmp_path: Path, shell_tree: Path, digest: str
) -> None:
    with (
        small_disk(tmp_path / "cache", "600k"),
        small_disk(tmp_path / "snapshotter", "4m"),
        running_node(tmp_path) as (node, containerd),
    ):
        image = node.build(shell_tree, "small:lazy", "--chunk-size", "64KiB")
        node.pull("small:lazy")
        assert run(containerd, image, "one", *_MD5) == (0, f"{digest}  /data/file\n")
        script = "cat /dev/zero > /data/big; ls /data; md5sum /data/file"
        code, said = run(containerd, image, "two", "/bin/sh", "-c", script)
        assert (code, said.splitlines()[-1]) == (0, f"{digest}  /data/file")
        containerd.collect()
        assert run(containerd, image, "three", *_MD5) == (0, f"{digest}  /data/file\n")
        containerd.clear()


def test_where_nothing_can_be_mounted_an_image_is_unpacked_whole(
    tmp_path: Path, shell_tree: Path, digest: str
) -> None:
    (tmp_path / "state").mkdir(mode=0o755)  # which is refused: others may enter it
    with running_node(tmp_path) as (node, containerd):
        image = node.build(shell_tree, "small:lazy")
        node.pull("small:lazy")
        assert len(list((node.root / "whole").iterdir())) == 1
        assert run(containerd, image, "one", *_MD5) == (0, f"{digest}  /data/file\n")
        node.kill()
        node.start()
        containerd.reach_snapshotter()
        assert run(containerd, image, "two", *_MD5) == (0, f"{digest}  /data/file\n")
        containerd.clear()
        assert list((node.root / "whole").iterdir()) == []
