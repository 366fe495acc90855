"""Models loaded by 16 threads in no order while things go wrong, and by many processes at once."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.loading import Load, fill, has_begun, make_model, serving
from fixtures.rangeserver import RangeServer
from fixtures.services import Service, service

pytestmark = pytest.mark.kernel

SIZE = 64 << 20
RATE = "250mbit"
"""Two seconds for all of it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    make_model(made, SIZE)
    return made


@pytest.fixture(scope="module")
def truth(folder: Path) -> str:
    return Load(folder / "tree").result().digest


@pytest.fixture
def scheduler(naiad: Naiad) -> Iterator[Service]:
    with service(naiad, "scheduler", "--listen", "127.0.0.1:0") as running:
        yield running


def test_a_daemon_that_is_killed_costs_a_load_a_pause(
    naiad: Naiad, folder: Path, truth: str
) -> None:
    with serving(folder / "image", "--rate", RATE) as origin:
        mount = naiad.mount(origin.url, "--prefetch", "none")
        load = Load(mount)
        has_begun(naiad, mount)
        daemon = naiad.status(mount)["daemon"]
        assert isinstance(daemon, int)
        os.kill(daemon, signal.SIGKILL)
        assert load.result().digest == truth
        assert naiad.status(mount)["restarts"] == 1


def test_an_origin_that_stops_for_a_while_is_waited_for(
    naiad: Naiad, folder: Path, truth: str
) -> None:
    with serving(folder / "image", "--rate", RATE) as origin:
        mount = naiad.mount(origin.url, "--prefetch", "none")
        load = Load(mount)
        has_begun(naiad, mount)
        origin.stop()
        with pytest.raises(subprocess.TimeoutExpired):
            load.process.wait(3)
        origin.go_on()
        assert load.result().digest == truth


def test_a_peer_that_falls_silent_costs_a_load_a_pause(
    naiad: Naiad, folder: Path, truth: str, scheduler: Service
) -> None:
    words = ("--scheduler", scheduler.address)
    with serving(folder / "image", "--rate", RATE) as origin:
        cache = naiad.folder / "giver"
        fill(naiad, origin.url, cache, SIZE)
        options = ("--cache", cache, "--upload-limit", "30MB")
        with service(naiad, "peer", *words, *options) as giver:
            mount = naiad.mount(origin.url, "--prefetch", "none", *words)
            load = Load(mount)
            has_begun(naiad, mount, "peer")
            giver.stop()
            assert load.result().digest == truth


def test_a_peer_that_lies_costs_no_load_a_byte(
    naiad: Naiad, folder: Path, truth: str, scheduler: Service
) -> None:
    with serving(folder / "image", "--rate", RATE) as origin:
        cache = naiad.folder / "liar"
        fill(naiad, origin.url, cache, SIZE)
        liar = service(naiad, cache, scheduler.address, name="liar", program=LIAR)
        with liar as running:
            mount = naiad.mount(origin.url, "--prefetch", "none", "--scheduler", scheduler.address)
            assert Load(mount).result().digest == truth
            assert "complaint piece=" in running.log.read_text()
            sources = naiad.status(mount)["sources"]
            assert isinstance(sources, dict)
            assert sources["peer"]["bytes"] == 0


LIAR = ("fixtures.lyingpeer",)


def test_a_dead_origin_is_a_signal_within_the_deadline_and_never_a_stuck_process(
    naiad: Naiad, folder: Path
) -> None:
    with serving(folder / "image", "--rate", RATE) as origin:
        mount = naiad.mount(origin.url, "--prefetch", "none", "--read-deadline", "3s")
        with closing(Load(mount)) as load, closing(Load(mount)) as other:
            has_begun(naiad, mount)
            origin.stop()
            stopped = time.monotonic()
            other.process.kill()
            other.process.wait(2.5)
            assert load.process.wait(12) == -signal.SIGBUS
            assert time.monotonic() - stopped < 12
            assert naiad.status(mount)["last_error"]


@pytest.mark.parametrize("driver", ["fuse", "erofs"])
def test_eight_processes_cost_one_fetch_per_chunk(
    naiad: Naiad, folder: Path, truth: str, driver: str
) -> None:
    with RangeServer(folder / "image", rate=60e6) as server:
        mount = naiad.mount(server.url, "--prefetch", "none", "--driver", driver)
        loads = [Load(mount, "in order") for _ in range(8)]
        digests = {load.result().digest for load in loads}
        assert digests == {truth}
        ranges = [(s, e) for path, s, e in server.statistics.ranges if path.startswith("/blobs/")]
        stored = sum(stop - start for start, stop in ranges)
        assert SIZE <= stored <= SIZE + (64 << 10)
