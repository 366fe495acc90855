"""Commands that are ended before their work is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.mounting import until
from fixtures.rangeserver import RangeServer
from rafs.scratch import PREFIX


def started(naiad: Naiad, *words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cli", *map(str, words)],
        env=naiad.environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(command: subprocess.Popen[str], number: int) -> None:
    """End *command* by the signal *number*, which it must obey at once and in few words."""
    command.send_signal(number)
    _, said = command.communicate(timeout=20)
    assert command.returncode == 1
    assert said.split() == ["Aborted!"]


@pytest.fixture
def large_image(naiad: Naiad, tmp_path: Path) -> Path:
    tree = tmp_path / "noise"
    tree.mkdir()
    (tree / "file").write_bytes(os.urandom(64 << 20))
    naiad.run("build", tree, tmp_path / "image")
    return tmp_path / "image"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["out", "out.tar"])
def test_an_unpacking_that_is_ended_leaves_nothing(
    naiad: Naiad, large_image: Path, tmp_path: Path, name: str, number: int
) -> None:
    place = tmp_path / "new" / name
    place.parent.mkdir()
    with RangeServer(large_image, rate=2 << 20) as server:  # all of it would take half a minute
        command = started(naiad, "unpack", server.url, place)
        until(lambda: server.statistics.sent > 5 << 20)
        ended(command, number)
    assert not list(place.parent.iterdir())


def test_a_build_that_is_terminated_leaves_nothing(naiad: Naiad, tmp_path: Path) -> None:
    place = tmp_path / "new"
    command = subprocess.Popen(
        [sys.executable, "-m", "cli", "build", "-", str(place)],
        env=naiad.environment,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: any(place.glob(f"{PREFIX}*/packed")))
    ended(command, signal.SIGTERM)
    assert not place.exists()
