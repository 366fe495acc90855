from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli.early import is_early
from fixtures.command import Naiad
from fixtures.mounting import until
from fusefs.mounting.child import start_time


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        ("mount image /mnt", {}, True),
        ("mount", {}, True),
        ("mount --foreground image /mnt", {}, False),
        ("mount --help", {}, False),
        ("mount image /mnt -h", {}, False),
        ("--log-level debug mount image /mnt", {}, False),
        ("status /mnt", {}, False),
        ("", {}, False),
        ("mount image /mnt", {"_NAIAD_COMPLETE": "bash_complete"}, False),
    ],
)
def test_only_a_mount_in_the_background_begins_early(
    words: str, environment: dict[str, str], expected: bool
) -> None:
    assert is_early(words.split(), environment) is expected


def test_misuse_and_failures_are_told_by_the_command_with_its_code(
    naiad: Naiad, tmp_path: Path
) -> None:
    misused = naiad.run("mount", ok=False)
    assert misused.returncode == 2
    assert "Missing argument" in misused.stderr
    failed = naiad.run("mount", tmp_path / "none", tmp_path / "nowhere", ok=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("naiad: cannot mount: ")
    assert failed.stderr.count("\n") == 1


def _started(naiad: Naiad, image: str, place: Path) -> subprocess.Popen[str]:
    """Return a mount at *place* that has forked its supervisor and its first daemon."""
    place.mkdir()
    command = subprocess.Popen(
        [sys.executable, "-m", "cli", "mount", image, str(place)],
        env=naiad.environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: len(_others(command.pid)) == 2)
    return command


def _others(group: int) -> list[int]:
    """Return the processes of a process group without its leader."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and entry.name != str(group) and fields[0] != "Z":
            found.append(int(entry.name))
    return found


@pytest.mark.kernel
def test_ctrl_c_while_it_mounts_leaves_nothing(naiad: Naiad, tmp_path: Path) -> None:
    place = tmp_path / "mount"
    command = _started(naiad, "http://127.0.0.1:9", place)
    os.killpg(command.pid, signal.SIGINT)
    _, said = command.communicate(timeout=20)
    assert command.returncode == 1
    assert "Aborted!" in said
    until(lambda: not _others(command.pid))
    assert not place.is_mount()
    until(lambda: not any(naiad.state.glob("*/control")))


@pytest.mark.kernel
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_command_that_is_killed_while_it_mounts_leaves_nothing(
    naiad: Naiad, tmp_path: Path, number: int
) -> None:
    place = tmp_path / "mount"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command = _started(naiad, f"http://127.0.0.1:{silent.getsockname()[1]}", place)
        others = _others(command.pid)
        with silent.accept()[0]:
            command.send_signal(number)
            command.communicate(timeout=20)
            assert command.returncode == -number
            until(lambda: not any(start_time(pid) for pid in others))
    assert not place.is_mount()
    assert not any(naiad.state.glob("*/control"))


@pytest.mark.kernel
def test_a_supervisor_that_is_killed_early_is_told_of(naiad: Naiad, tmp_path: Path) -> None:
    place = tmp_path / "mount"
    command = _started(naiad, "http://127.0.0.1:9", place)
    os.kill(min(_others(command.pid)), signal.SIGKILL)
    _, said = command.communicate(timeout=20)
    assert (command.returncode, said) == (1, "naiad: cannot mount: its supervisor died\n")
    until(lambda: not _others(command.pid))


@pytest.mark.kernel
def test_a_daemon_that_is_killed_early_is_forked_anew(
    naiad: Naiad, tmp_path: Path, tree: Path
) -> None:
    image, place = tmp_path / "image", tmp_path / "mount"
    naiad.run("build", tree, image)
    command = _started(naiad, str(image), place)
    os.kill(max(_others(command.pid)), signal.SIGKILL)
    _, said = command.communicate(timeout=20)
    assert (command.returncode, said) == (0, "")
    assert {path.name for path in place.iterdir()} == {path.name for path in tree.iterdir()}
    naiad.umount(place)
