"""Fetches through a swarm of processes on loopback."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

from chunkstore import Algorithm, Digest
from chunkstore.http import Client
from chunkstore.origins.push import Push
from chunkstore.origins.reference import Reference
from chunkstore.origins.registry import Registry
from fixtures.command import Naiad
from fixtures.rangeserver import RangeServer
from fixtures.registry import is_installed, running_registry
from fixtures.services import service
from fixtures.swarmcerts import SwarmCerts
from p2p.pki import Wish, issue
from p2p.security import Papers, Role

FILE = random.Random(4).randbytes(12 << 20)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv" / "file").write_bytes(FILE)
    with RangeServer(tmp_path / "srv") as running:
        yield running


class Hosts:
    """Fetches, each with a cache of its own, as on as many machines."""

    def __init__(self, naiad: Naiad, url: str, *options: str | Path) -> None:
        self._naiad = naiad
        self._url = url
        self._options = options

    def fetch(self, name: str, *options: str) -> dict[str, int]:
        """Fetch, see that it is right, and return the bytes by source."""
        out, cache = self._naiad.folder / f"out-{name}", self._naiad.folder / f"cache-{name}"
        words: list[str | Path] = ["-o", out, "--cache", cache, "--json", *self._options, *options]
        told = self._naiad.json("fetch", self._url, *words)
        assert isinstance(told, dict)
        assert out.read_bytes() == FILE
        found = told["bytes"]
        assert isinstance(found, dict)
        return found

    def fetch_all(self, *names: str) -> list[dict[str, int]]:
        with ThreadPoolExecutor(len(names)) as pool:
            return list(pool.map(self.fetch, names))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_one_line_starts_a_swarm_that_outlives_its_origin(
    naiad: Naiad, server: RangeServer
) -> None:
    address = f"127.0.0.1:{free_port()}"
    words = ("--scheduler", "self", "--listen", address, "--cache", naiad.folder / "seed")
    with service(naiad, "seed", *words):
        hosts = Hosts(naiad, f"{server.url}/file", "--scheduler", address)
        found = hosts.fetch_all("a", "b", "c")
        assert [each["peer"] for each in found] == [len(FILE)] * 3
        assert server.statistics.sent < 1.05 * len(FILE)
        server.close()
        assert hosts.fetch("d")["peer"] == len(FILE)


def test_without_a_seed_the_origin_is_read_about_once(
    naiad: Naiad, server: RangeServer, tmp_path: Path
) -> None:
    with (
        service(naiad, "scheduler", "--listen", "127.0.0.1:0") as scheduler,
        RangeServer(tmp_path / "srv", rate=3 << 20) as slow,
    ):
        hosts = Hosts(naiad, f"{slow.url}/file", "--scheduler", scheduler.address)
        hosts.fetch_all("a", "b", "c")
        assert slow.statistics.sent < 2 * len(FILE)


def told(papers: Papers) -> tuple[str, ...]:
    return (
        "--certificate",
        str(papers.certificate),
        "--key",
        str(papers.key),
        "--ca",
        str(papers.ca),
    )


def test_a_swarm_under_tls_keeps_strangers_out(
    naiad: Naiad, server: RangeServer, tmp_path: Path
) -> None:
    certs, foreign = SwarmCerts(tmp_path / "pki"), SwarmCerts(tmp_path / "foreign")
    theirs = foreign.papers(Role.PEER)
    stranger = Papers(theirs.certificate, theirs.key, certs.ca)
    listen = ("--listen", "127.0.0.1:0")
    with service(naiad, "scheduler", *listen, *told(certs.papers(Role.SCHEDULER))) as scheduler:
        swarm = ("--scheduler", scheduler.address)
        words = ("--cache", str(naiad.folder / "seed"), *told(certs.papers(Role.SEED)))
        with service(naiad, "seed", *swarm, *words) as running:
            hosts = Hosts(naiad, f"{server.url}/file", *swarm)
            assert hosts.fetch("a", *told(certs.papers(Role.PEER)))["peer"] == len(FILE)
            assert hosts.fetch("b", *told(stranger))["origin"] == len(FILE)
            assert hosts.fetch("c")["origin"] == len(FILE)
            assert "its certificate is not trusted" in scheduler.log.read_text()
            assert "it does not speak TLS" in scheduler.log.read_text()
            assert running.end() == 0


def test_beyond_loopback_there_is_one_clear_error(naiad: Naiad) -> None:
    done = naiad.run("scheduler", "--listen", "0.0.0.0:0", ok=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "will not listen on 0.0.0.0 without TLS" in done.stderr


def test_papers_that_cannot_be_used_are_one_clear_error(naiad: Naiad, tmp_path: Path) -> None:
    certs = SwarmCerts(tmp_path / "pki")
    one = certs.papers(Role.SCHEDULER, name="one")
    wish = Wish("other", [Role.SCHEDULER], timedelta(days=1))
    other = issue(certs.folder, wish, certs.folder, datetime.now(UTC))
    words = told(Papers(one.certificate, other.key, one.ca))
    done = naiad.run("scheduler", "--listen", "127.0.0.1:0", *words, ok=False)
    assert done.returncode == 1
    assert "no certificate and its key" in done.stderr
    missing = naiad.run("scheduler", "--certificate", one.certificate, ok=False)
    assert missing.returncode == 2
    assert "go together" in missing.stderr


@pytest.mark.real
@pytest.mark.skipif(not is_installed(), reason="there is no docker-registry")
def test_a_blob_of_a_registry_is_a_file_like_any_other(naiad: Naiad, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(FILE)
    digest = Digest.of(FILE, Algorithm.SHA256)
    with (
        running_registry(tmp_path / "registry") as registry,
        service(naiad, "scheduler", "--listen", "127.0.0.1:0") as scheduler,
    ):
        trio.run(push, f"{registry.host}/a/b", digest, tmp_path / "blob")
        words = ("--scheduler", scheduler.address, "--cache", naiad.folder / "seed")
        with service(naiad, "seed", *words):
            hosts = Hosts(naiad, f"{registry.host}/a/b@{digest}", "--plain-http")
            assert hosts.fetch("alone")["origin"] == len(FILE)
            assert hosts.fetch("one", "--scheduler", scheduler.address)["peer"] == len(FILE)
            missing = Hosts(naiad, f"{registry.host}/a/b@sha256:{'0' * 64}", "--plain-http")
            with pytest.raises(AssertionError, match="not found"):
                missing.fetch("none")


async def push(name: str, digest: Digest, path: Path) -> None:
    with Client() as client:
        registry = Registry(Reference.parse(name), client, plain_http=True)
        await Push(registry).blob(digest, path)
