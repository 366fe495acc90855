"""Containers whose images come from peers, with containerd as Debian packs it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from fixtures.command import naiad
from fixtures.node import running_node
from fixtures.services import service

pytestmark = [pytest.mark.kernel, pytest.mark.real]


def chunks(facts: Mapping[str, object], source: str) -> int:
    sources = facts["sources"]
    assert isinstance(sources, dict)
    count = sources[source]["chunks"]
    assert isinstance(count, int)
    return count


def test_a_container_reads_what_a_mount_elsewhere_holds(
    tmp_path: Path, shell_tree: Path, digest: str
) -> None:
    if os.geteuid():
        pytest.skip("only root runs containerd")
    (tmp_path / "elsewhere").mkdir()
    with naiad(tmp_path / "elsewhere") as other:
        with service(other, "scheduler", "--listen", "127.0.0.1:0") as scheduler:
            told = "--scheduler", scheduler.address
            with running_node(tmp_path / "node", *told) as (node, containerd):
                lazy = node.build(shell_tree, "small:lazy")
                mount = other.mount(lazy, "--plain-http", "--prefetch", "all", *told)
                other.run("warm", "--wait", mount)
                held = other.status(mount)
                node.pull("small:lazy")
                said = containerd.container(lazy, "one", "/bin/md5sum", "/data/file")
                assert said.split()[0] == digest
                facts = node.image_facts("small")
                containerd.clear()
        assert chunks(held, "origin") > 0
        assert chunks(facts, "peer") > 0
        assert chunks(facts, "origin") == 0
