"""The check that every run of tests ends with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fixtures.leftovers import MARK, Surroundings
from fixtures.smalldisk import small_disk


def test_a_run_that_leaves_nothing_passes(tmp_path: Path) -> None:
    around = Surroundings.of(tmp_path, "quiet")
    subprocess.run(["true"], env={**os.environ, MARK: "quiet"}, check=True)
    assert around.left(0) == []


def test_processes_and_descriptors_that_stay_are_named(tmp_path: Path) -> None:
    around = Surroundings.of(tmp_path, "busy")
    with (
        (tmp_path / "open").open("wb"),
        subprocess.Popen(["sleep", "100"], env={**os.environ, MARK: "busy"}) as process,
    ):
        descriptor, started = around.left(0)
        process.kill()
    assert descriptor.endswith(f": {tmp_path}/open")
    assert started == f"process {process.pid}: sleep 100"
    assert around.left(0) == []


@pytest.mark.kernel
def test_mounts_that_stay_are_named(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root mounts")
    around = Surroundings.of(tmp_path, "mounted")
    with small_disk(tmp_path / "disk", "1m"):
        (found,) = around.left(0)
    assert found.startswith("mount ")
    assert str(tmp_path / "disk") in found
    assert around.left(0) == []


def test_what_is_new_in_the_machines_own_folders_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/old").touch()
    around = Surroundings.of(tmp_path, "homes", [str(tmp_path / "home")])
    (tmp_path / "home/new").touch()
    assert around.left(0) == [f"{tmp_path}/home/new"]
