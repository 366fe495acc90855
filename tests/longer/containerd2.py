"""containerd 2 pulls lazily with its own client, and runs what it pulled.

    python -m tests.longer.containerd2 DIR

DIR has containerd, ctr and containerd-shim-runc-v2 of version 2, which Debian 12 does not pack.
With Go 1.26 they are there in some minutes, which is why this is no part of the tests of a change::

    GOBIN=DIR go install -tags no_btrfs,no_devmapper,no_zfs \\
        github.com/containerd/containerd/v2/cmd/{containerd,ctr,containerd-shim-runc-v2}@v2.4.2
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import click

from fixtures.command import naiad
from fixtures.containerd import RealContainerd
from fixtures.node import Layer, Node, small_root, tar_of
from fixtures.registry import running_registry


class Containerd2(RealContainerd):
    """The same with a configuration of version 3."""

    def __init__(self, folder: Path, snapshotter: Path, programs: Path) -> None:
        super().__init__(folder, snapshotter)
        self.environment["PATH"] = f"{programs}:{os.environ['PATH']}"

    def _config(self) -> str:
        text = json.dumps
        return f"""
version = 3
root = {text(str(self.folder / "root"))}
state = {text(str(self.folder / "state"))}
[grpc]
  address = {text(str(self.address))}
[proxy_plugins.naiad]
  type = "snapshot"
  address = {text(str(self._plugins["naiad"]))}
  [proxy_plugins.naiad.exports]
    enable_remote_snapshot_annotations = "true"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64"
  snapshotter = "naiad"
[plugins."io.containerd.internal.v1.opt"]
  path = {text(str(self.folder / "opt"))}
"""


@click.command()
@click.argument("programs", type=click.Path(path_type=Path, file_okay=False, resolve_path=True))
def main(programs: Path) -> None:
    """Pull and run a lazy and an ordinary image by the containerd in PROGRAMS."""
    for name in ("containerd", "ctr", "containerd-shim-runc-v2"):
        if not (programs / name).is_file():
            raise click.UsageError(f"{programs} has no {name}")
    told = subprocess.run((programs / "containerd", "--version"), capture_output=True, text=True)
    if "/containerd/v2 " not in told.stdout:  # the module's path, whatever it was built by
        raise click.UsageError(f"not containerd 2: {told.stdout.strip()}")
    with tempfile.TemporaryDirectory(prefix="naiad-containerd2-") as name:
        folder = Path(name)
        tree = small_root(folder / "tree", file=os.urandom(1 << 20))
        with running_registry(folder / "registry") as registry, naiad(folder) as command:
            node = Node(command, registry, folder, ())
            (folder / "containerd").mkdir()
            containerd = Containerd2(folder / "containerd", node.address, programs)
            try:
                node.start()
                containerd.start()
                run(node, containerd, tree)
            finally:
                containerd.stop()
                node.end()


def run(node: Node, containerd: Containerd2, tree: Path) -> None:
    """Do it, and print what came of it."""
    print(containerd.ctr("version").splitlines()[1].strip())
    images = {
        "lazy": (node.build(tree, "small:lazy"), 3),
        "ordinary": (node.push([Layer(tar_of(tree))], "small:plain"), 3),
    }
    for what, (image, count) in images.items():
        containerd.ctr("images", "pull", "--plain-http", "--snapshotter", "naiad", image)
        content = containerd.ctr("content", "ls").splitlines()[1:]
        assert len(content) == count, content
        said = containerd.container(image, what, "/bin/sh", "-c", "md5sum /data/file; id -u")
        print(f"{what}: {len(content)} documents in the content store, {said.split()}")
        containerd.clear()
    print("nothing is left")


if __name__ == "__main__":
    main()
