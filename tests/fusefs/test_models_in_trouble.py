"""Models loaded by 16 threads in no order while things go wrong, and by many processes at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.mounting import until
from fixtures.rangeserver import RangeServer
from fixtures.weights import write_safetensors
from rafs.builder import build
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
SIZE = 64 << 20
RATE = "250mbit"
"""Two seconds for all of it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    (made / "tree").mkdir()
    write_safetensors(made / "tree/model.safetensors", [(512, 1024)] * 64)
    build(DirectorySource(made / "tree"), DirectoryTarget(made / "image"))
    return made


@pytest.fixture(scope="module")
def truth(folder: Path) -> str:
    return _loaded(_load(folder / "tree"))


@contextmanager
def _server(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve the image from a process, which a signal can stop in the middle of anything."""
    words = [sys.executable, "-m", "fixtures.rangeserver", str(folder / "image"), "--rate", RATE]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip(), server
        finally:
            server.kill()


def _load(folder: Path, kind: str = "16 threads shuffled") -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "tests.bench.loaders", kind, str(folder / "model.safetensors")]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _loaded(load: subprocess.Popen[str]) -> str:
    said, _ = load.communicate(timeout=60)
    assert load.returncode == 0
    return str(json.loads(said)["digest"])


def _has_begun(naiad: Naiad, mount: Path) -> None:
    def some() -> bool:
        ready = naiad.status(mount)["ready_bytes"]
        assert isinstance(ready, int)
        return ready > 8 << 20

    until(some)


def test_a_daemon_that_is_killed_costs_a_load_a_pause(
    naiad: Naiad, folder: Path, truth: str
) -> None:
    with _server(folder) as (url, _):
        mount = naiad.mount(url, "--prefetch", "none")
        load = _load(mount)
        _has_begun(naiad, mount)
        daemon = naiad.status(mount)["daemon"]
        assert isinstance(daemon, int)
        os.kill(daemon, signal.SIGKILL)
        assert _loaded(load) == truth
        assert naiad.status(mount)["restarts"] == 1


def test_an_origin_that_stops_for_a_while_is_waited_for(
    naiad: Naiad, folder: Path, truth: str
) -> None:
    with _server(folder) as (url, server):
        mount = naiad.mount(url, "--prefetch", "none")
        load = _load(mount)
        _has_begun(naiad, mount)
        server.send_signal(signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            load.wait(3)
        server.send_signal(signal.SIGCONT)
        assert _loaded(load) == truth


def test_a_dead_origin_is_a_signal_within_the_deadline_and_never_a_stuck_process(
    naiad: Naiad, folder: Path
) -> None:
    with _server(folder) as (url, server):
        mount = naiad.mount(url, "--prefetch", "none", "--read-deadline", "3s")
        load, other = _load(mount), _load(mount)
        _has_begun(naiad, mount)
        server.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        other.kill()
        other.wait(2.5)
        assert load.wait(12) == -signal.SIGBUS
        assert time.monotonic() - stopped < 12
        assert naiad.status(mount)["last_error"]
        other.communicate()
        load.communicate()


@pytest.mark.parametrize("driver", ["fuse", "erofs"])
def test_eight_processes_cost_one_fetch_per_chunk(
    naiad: Naiad, folder: Path, truth: str, driver: str
) -> None:
    with RangeServer(folder / "image", rate=60e6) as server:
        mount = naiad.mount(server.url, "--prefetch", "none", "--driver", driver)
        loads = [_load(mount, "in order") for _ in range(8)]
        digests = {_loaded(load) for load in loads}
        assert len(digests) == 1
        ranges = [(s, e) for path, s, e in server.statistics.ranges if path.startswith("/blobs/")]
        stored = sum(stop - start for start, stop in ranges)
        assert SIZE <= stored <= SIZE + (64 << 10)
