"""Mounts of the real stack whose data has not arrived, while things go wrong."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.mounting import until
from fixtures.rangeserver import RangeServer
from fusefs.mounting.mountinfo import topmost
from rafs.builder import build
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget

pytestmark = pytest.mark.kernel

DATA = random.Random(11).randbytes(12_000_000)
SOON = 8.0
"""Seconds."""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "data").write_bytes(DATA)
    (tree / "small").write_bytes(DATA[:5000])
    build(DirectorySource(tree), DirectoryTarget(tmp_path / "image"))
    return tmp_path / "image"


@contextmanager
def _stoppable(image: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve *image* from a process, which a signal can stop in the middle of anything."""
    words = [sys.executable, "-m", "fixtures.rangeserver", str(image), "--port", "0"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip(), server
        finally:
            server.kill()


def _pid(naiad: Naiad, mount: Path, name: str) -> int:
    pid = naiad.status(mount)[name]
    assert isinstance(pid, int)
    return pid


def test_fifty_readers_of_a_cold_file_fetch_each_chunk_once(naiad: Naiad, image: Path) -> None:
    with RangeServer(image) as server:
        mount = naiad.mount(server.url, "--prefetch", "none")
        readers = [
            subprocess.Popen(["sha256sum", mount / "data"], stdout=subprocess.PIPE)
            for _ in range(50)
        ]
        expected = hashlib.sha256(DATA).hexdigest().encode()
        for reader in readers:
            said, _ = reader.communicate(timeout=60)
            assert said.startswith(expected)
        ranges = [(s, e) for path, s, e in server.statistics.ranges if path.startswith("/blobs/")]
        stored = sum(stop - start for start, stop in ranges)
        ordered = sorted(ranges)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ordered)), "no overlap"
        assert stored <= len(DATA) + 5000, "the neighbour may come with it, and no more"


def test_unmount_while_fetches_are_in_flight_ends_soon_and_keeps_what_came(
    naiad: Naiad, image: Path
) -> None:
    with RangeServer(image, rate=1.5e6) as server:
        mount = naiad.mount(server.url, "--prefetch", "all")
        until(lambda: int(str(naiad.status(mount)["ready_bytes"])) > 1_000_000)
        began = time.monotonic()
        naiad.umount(mount)
        assert time.monotonic() - began < SOON
        assert topmost(mount) is None
    before = server.statistics.sent
    assert before < len(DATA)
    with RangeServer(image) as server:
        mount = naiad.mount(server.url, "--prefetch", "none")
        assert (mount / "data").read_bytes() == DATA
        assert server.statistics.sent < len(DATA), "some of it was here"


def test_everything_killed_in_the_middle_of_a_cold_read_loses_nothing_verified(
    naiad: Naiad, image: Path
) -> None:
    with RangeServer(image, rate=8e6) as server:
        mount = naiad.mount(server.url, "--prefetch", "none")
        handle = os.open(mount / "data", os.O_RDONLY)
        reader = threading.Thread(target=_read_until_cut, args=(handle,))
        reader.start()
        until(lambda: int(str(naiad.status(mount)["ready_bytes"])) > 1_000_000)
        pids = _pid(naiad, mount, "supervisor"), _pid(naiad, mount, "daemon")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        reader.join(SOON)
        assert not reader.is_alive()
    with RangeServer(image) as server:
        naiad.mount(server.url, "--prefetch", "none", mountpoint=mount)
        assert (mount / "data").read_bytes() == DATA
        assert server.statistics.sent < len(DATA), "some of it was here"


def _read_until_cut(handle: int) -> None:
    try:
        for start in range(0, len(DATA), 1 << 20):
            os.pread(handle, 1 << 20, start)
        os.close(handle)
    except OSError:
        return


def test_daemon_that_dies_while_the_origin_is_gone_is_a_pause(naiad: Naiad, image: Path) -> None:
    with RangeServer(image) as server:
        mount = naiad.mount(server.url, "--prefetch", "none")
        assert (mount / "data").read_bytes() == DATA
        before = _pid(naiad, mount, "daemon")
    os.kill(before, signal.SIGKILL)
    until(lambda: _pid(naiad, mount, "daemon") != before)
    handle = os.open(mount / "data", os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(handle, 1 << 20, 3 << 20) == DATA[3 << 20 : 4 << 20]
    os.close(handle)


def test_daemon_that_follows_serves_the_same_image_though_its_name_means_another(
    naiad: Naiad, image: Path, tmp_path: Path
) -> None:
    mount = naiad.mount(image, "--prefetch", "none")
    assert (mount / "data").read_bytes() == DATA
    before = _pid(naiad, mount, "daemon")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data").write_bytes(bytes(5))
    build(DirectorySource(tmp_path / "other"), DirectoryTarget(image))
    os.kill(before, signal.SIGKILL)
    until(lambda: _pid(naiad, mount, "daemon") != before)
    assert sorted(path.name for path in mount.iterdir()) == ["data", "small"]
    assert (mount / "data").read_bytes() == DATA


def test_origin_that_stalls_fails_reads_in_time_and_says_why(naiad: Naiad, image: Path) -> None:
    with _stoppable(image) as (url, server):
        mount = naiad.mount(url, "--prefetch", "none", "--read-deadline", "2s")
        assert (mount / "small").read_bytes() == DATA[:5000]
        server.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(OSError, match="Input/output error"):
            (mount / "data").read_bytes()
        assert time.monotonic() - began < SOON
        assert naiad.status(mount)["last_error"]
        server.send_signal(signal.SIGCONT)
        # Who tries again at once gets the same answer.
        until(lambda: _reads(mount / "data"))


def _reads(path: Path) -> bool:
    """Say whether *path* can be read and is right."""
    try:
        return path.read_bytes() == DATA
    except OSError:
        return False


@pytest.mark.parametrize("way", ["signal", "lazy"])
def test_stalled_origin_delays_no_unmount(naiad: Naiad, image: Path, way: str) -> None:
    with _stoppable(image) as (url, server):
        mount = naiad.mount(url, "--prefetch", "none")
        supervisor, daemon = _pid(naiad, mount, "supervisor"), _pid(naiad, mount, "daemon")
        handle = os.open(mount / "data", os.O_RDONLY)
        server.send_signal(signal.SIGSTOP)
        reader = threading.Thread(target=_read_until_cut, args=(handle,))
        reader.start()
        until(lambda: naiad.status(mount)["waiting_reads"])
        began = time.monotonic()
        if way == "signal":
            os.kill(supervisor, signal.SIGTERM)
        else:
            naiad.run("umount", "--lazy", mount)
        reader.join(SOON)
        assert not reader.is_alive()
        until(lambda: not Path(f"/proc/{daemon}").exists(), SOON)
        assert time.monotonic() - began < SOON
        assert topmost(mount) is None
