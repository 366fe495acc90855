"""Mounts, peers, a seed and a scheduler, as processes on loopback."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest

from fixtures.command import Naiad
from fixtures.mounting import until
from fixtures.rangeserver import RangeServer
from fixtures.services import Service, service
from rafs.builder import BuildOptions, build
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget

pytestmark = pytest.mark.kernel

CHUNK = 64 << 10
SIZE = 6 << 20


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a tree of three files of 2 MiB."""
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(3):
        (root / f"file{number}").write_bytes(random.Random(number).randbytes(SIZE // 3))
    return root


@pytest.fixture
def origin(tree: Path, tmp_path: Path) -> Iterator[RangeServer]:
    """Serve the image of the tree, and count."""
    options = BuildOptions(chunk_size=CHUNK)
    build(DirectorySource(tree), DirectoryTarget(tmp_path / "image"), options)
    with RangeServer(tmp_path / "image") as server:
        yield server


@pytest.fixture
def scheduler(naiad: Naiad) -> Iterator[Service]:
    """Run a scheduler."""
    with service(naiad, "scheduler", "--listen", "127.0.0.1:0") as running:
        yield running


def read(mountpoint: Path) -> dict[str, bytes]:
    """Read everything below *mountpoint*, in a process of its own."""
    code = "import pathlib, sys\nfor p in pathlib.Path(sys.argv[1]).iterdir():\n"
    code += " sys.stdout.buffer.write(p.name.encode() + b'\\n' + p.read_bytes())"
    said = subprocess.run(
        [sys.executable, "-c", code, str(mountpoint)],
        capture_output=True,
        timeout=60,
        check=True,
    ).stdout
    found, step = {}, SIZE // 3 + len("file0\n")
    for at in range(0, len(said), step):
        name, _, data = said[at : at + step].partition(b"\n")
        found[name.decode()] = data
    return found


def expected(tree: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in tree.iterdir()}


class Hosts:
    """Mounts of one image, each with a cache of its own, as on as many machines."""

    def __init__(self, naiad: Naiad, image: str, *options: str) -> None:
        self._naiad = naiad
        self._image = image
        self._options = options
        self.mountpoints: list[Path] = []

    def mount(self, name: str, *options: str) -> Path:
        cache = self._naiad.folder / f"cache-{name}"
        words = (*self._options, *options, "--driver", "fuse", "--cache", str(cache))
        self.mountpoints.append(self._naiad.mount(self._image, *words))
        return self.mountpoints[-1]

    def read_all(self) -> list[dict[str, bytes]]:
        with ThreadPoolExecutor(len(self.mountpoints)) as pool:
            return list(pool.map(read, self.mountpoints))

    def sources(self, mountpoint: Path) -> dict[str, int]:
        told = self._naiad.status(mountpoint)["sources"]
        assert isinstance(told, Mapping)
        return {name: tally["bytes"] for name, tally in told.items()}


def sent(origin: RangeServer) -> int:
    """Return the bytes of blobs that the origin has sent."""
    with_lists = (r for r in origin.statistics.ranges if "/blobs/" in r[0])
    return sum(stop - start for _, start, stop in with_lists)


@pytest.mark.parametrize("with_seed", [True, False], ids=["with a seed", "without"])
def test_hosts_that_start_together_read_the_origin_once(
    with_seed: bool, naiad: Naiad, tree: Path, origin: RangeServer, scheduler: Service
) -> None:
    hosts = Hosts(naiad, origin.url, "--scheduler", scheduler.address)
    words = ("seed", "--scheduler", scheduler.address, "--cache", naiad.folder / "seed")
    if with_seed:
        with service(naiad, *words) as seed:
            assert seed.address.startswith("127.0.0.1:")
            together(hosts, tree, origin)
    else:
        together(hosts, tree, origin)


def test_a_seed_reads_nothing_but_the_origins_that_it_was_told(
    naiad: Naiad, tree: Path, origin: RangeServer, scheduler: Service, tmp_path: Path
) -> None:
    hosts = Hosts(naiad, origin.url, "--scheduler", scheduler.address)
    config = tmp_path / "seed.toml"
    config.write_text('origins = ["https://registry.example/*"]\n')
    words = ("seed", "--scheduler", scheduler.address, "--cache", naiad.folder / "seed")
    with service(naiad, *words, "--config", config):
        host = hosts.mount("a")
        assert read(host) == expected(tree)
        assert hosts.sources(host)["origin"] == SIZE
        out = ("-o", tmp_path / "out", "--cache", naiad.folder / "cache-b")
        naiad.run("fetch", "--scheduler", scheduler.address, f"{origin.url}/image.boot", *out)
        assert (tmp_path / "out").read_bytes() == (tmp_path / "image" / "image.boot").read_bytes()
    assert not list((naiad.folder / "seed").glob("blobs/*.data"))


def test_a_pattern_that_names_no_origin_is_told(naiad: Naiad) -> None:
    words = ("seed", "--scheduler", "127.0.0.1:1", "--origin", "registry.example")
    done = naiad.run(*words, ok=False)
    assert (done.returncode, "such as https://registry.example/*" in done.stderr) == (2, True)


def together(hosts: Hosts, tree: Path, origin: RangeServer) -> None:
    for name in ("a", "b", "c"):
        hosts.mount(name)
    before = sent(origin)
    assert hosts.read_all() == [expected(tree)] * 3
    assert sent(origin) - before <= 1.05 * SIZE
    assert sum(hosts.sources(each)["peer"] for each in hosts.mountpoints) >= 2 * SIZE


def test_a_peer_that_is_killed_costs_nobody_a_wrong_byte(
    naiad: Naiad, tree: Path, origin: RangeServer, scheduler: Service
) -> None:
    hosts = Hosts(naiad, origin.url, "--scheduler", scheduler.address)
    victim = hosts.mount("victim", "--prefetch", "all")
    until(lambda: hosts.sources(victim)["origin"] >= SIZE)
    reader = hosts.mount("reader")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, reader)
        until(lambda: hosts.sources(reader)["peer"] > 0)
        pid = naiad.status(victim)["daemon"]
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGKILL)
        assert reading.result(60) == expected(tree)


def test_a_scheduler_that_is_gone_is_not_missed(
    naiad: Naiad, tree: Path, origin: RangeServer, scheduler: Service
) -> None:
    hosts = Hosts(naiad, origin.url, "--scheduler", scheduler.address)
    hosts.mount("a")
    hosts.mount("b")
    scheduler.kill()
    assert hosts.read_all() == [expected(tree)] * 2


def test_what_lies_in_a_cache_is_served_without_a_mount_and_without_an_origin(
    naiad: Naiad, tree: Path, origin: RangeServer, scheduler: Service
) -> None:
    hosts = Hosts(naiad, origin.url, "--scheduler", scheduler.address)
    first = hosts.mount("first", "--prefetch", "all")
    until(lambda: hosts.sources(first)["origin"] >= SIZE)
    naiad.umount(first)
    cache = naiad.folder / "cache-first"
    with service(naiad, "peer", "--scheduler", scheduler.address, "--cache", cache):
        second = hosts.mount("second")
        before = sent(origin)
        assert read(second) == expected(tree)
        assert sent(origin) == before
        assert hosts.sources(second) | {"cache": 0} == {"cache": 0, "peer": SIZE, "origin": 0}


def test_who_does_not_upload_is_served_all_the_same(
    naiad: Naiad, tree: Path, origin: RangeServer, scheduler: Service
) -> None:
    hosts = Hosts(naiad, origin.url, "--scheduler", scheduler.address)
    giver = hosts.mount("giver", "--prefetch", "all")
    until(lambda: hosts.sources(giver)["origin"] >= SIZE)
    taker = hosts.mount("taker", "--no-upload")
    assert read(taker) == expected(tree)
    assert hosts.sources(taker)["peer"] == SIZE
    swarm = naiad.status(taker)["swarm"]
    assert isinstance(swarm, Mapping)
    assert swarm["address"] == ""


def test_beyond_loopback_nothing_is_done_without_tls_or_leave(naiad: Naiad, tmp_path: Path) -> None:
    done = naiad.run("scheduler", "--listen", "0.0.0.0:0", ok=False)
    assert (done.returncode, "--insecure" in done.stderr) == (1, True)


def test_a_mount_beyond_loopback_without_tls_is_refused_in_one_line(
    naiad: Naiad, origin: RangeServer, tmp_path: Path
) -> None:
    words = ("mount", "--scheduler", "10.0.0.1:7000", origin.url, tmp_path / "mount")
    (tmp_path / "mount").mkdir()
    done = naiad.run(*words, ok=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "will not dial 10.0.0.1 without TLS" in done.stderr
    assert "internal error" not in done.stderr


SERVICES = [
    ("scheduler", "--listen"),
    ("seed", "--scheduler", "127.0.0.1:1", "--listen"),
    ("peer", "--listen"),
    ("scheduler", "--listen", "127.0.0.1:0", "--metrics"),
]


@pytest.mark.parametrize("words", SERVICES)
def test_an_address_in_use_is_named(naiad: Naiad, words: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = naiad.run(*words, address, ok=False)
    assert done.returncode == 1
    assert done.stderr == f"naiad: cannot listen at {address}: Address already in use\n"


def test_a_mount_names_an_address_in_use(naiad: Naiad, origin: RangeServer, tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        words = ("mount", "--listen", address, origin.url, tmp_path / "mount")
        done = naiad.run(*words, ok=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f": cannot listen at {address}: Address already in use" in done.stderr


def test_a_key_that_no_service_knows_is_an_error(naiad: Naiad, tmp_path: Path) -> None:
    config = tmp_path / "scheduler.toml"
    config.write_text('listen = "127.0.0.1:0"\nparrents = 4\n')
    done = naiad.run("scheduler", "--config", config, ok=False)
    assert (done.returncode, "'parrents'" in done.stderr) == (2, True)


def test_a_service_takes_its_options_from_a_file(naiad: Naiad, tmp_path: Path) -> None:
    config = tmp_path / "scheduler.toml"
    config.write_text('listen = "127.0.0.1:0"\nparents = 2\n')
    with service(naiad, "scheduler", "--config", config) as running:
        assert running.address != "127.0.0.1:7000"


def test_a_scheduler_tells_people_and_prometheus_of_its_swarm(
    naiad: Naiad, tree: Path, origin: RangeServer
) -> None:
    told = free_port()
    words = ("scheduler", "--listen", "127.0.0.1:0", "--metrics", f"127.0.0.1:{told}")
    with service(naiad, *words) as scheduler:
        hosts = Hosts(naiad, origin.url, "--scheduler", scheduler.address)
        host = hosts.mount("a")
        assert read(host) == expected(tree)
        state = naiad.json("status", "--scheduler", scheduler.address, "--json")
        assert isinstance(state, dict)
        assert [host["kind"] for host in state["hosts"]] == ["peer"]
        assert [task["finished"] for task in state["tasks"]] == [1]
        shown = naiad.run("status", "--scheduler", scheduler.address).stdout
        assert "peer" in shown
        with urlopen(f"http://127.0.0.1:{told}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        assert "naiad_scheduler_hosts 1.0" in lines


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert isinstance(port, int)
        return port
