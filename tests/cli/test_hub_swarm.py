"""A hub's files from peers: those that were checked there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.hub import FILES, LARGE, HubServer
from fixtures.mounting import until
from fixtures.services import Service, service

pytestmark = pytest.mark.kernel

BIG = {path: data for path, data in FILES.items() if len(data) > 1 << 20}
DISTINCT = sum(map(len, set(BIG.values())))


@pytest.fixture
def scheduler(hub_client: Naiad) -> Iterator[Service]:
    with service(hub_client, "scheduler", "--listen", "127.0.0.1:0") as running:
        yield running


def host(naiad: Naiad, scheduler: Service, name: str, *options: str) -> Path:
    """Mount the model as another machine does."""
    cache = str(naiad.folder / f"cache-{name}")
    words = ("--scheduler", scheduler.address, "--cache", cache, *options)
    return naiad.mount("hf:org/model", *words)


def big(mount: Path) -> dict[str, bytes]:
    return {path: (mount / path).read_bytes() for path in BIG}


def came(naiad: Naiad, mount: Path, source: str) -> int:
    sources = naiad.status(mount)["sources"]
    assert isinstance(sources, Mapping)
    size = sources[source]["bytes"]
    assert isinstance(size, int)
    return size


def told_of_both(naiad: Naiad, scheduler: Service) -> bool:
    """Say whether the scheduler knows that one host has both files."""
    said = naiad.json("status", "--scheduler", scheduler.address, "--json")
    assert isinstance(said, dict)
    return [task["finished"] for task in said["tasks"]] == [1, 1]


def test_what_one_host_has_checked_another_takes_from_there(
    hub_client: Naiad, hub_server: HubServer, scheduler: Service
) -> None:
    first = host(hub_client, scheduler, "first")
    assert big(first) == BIG
    until(lambda: hub_client.status(first)["unverified"] == [])
    until(lambda: told_of_both(hub_client, scheduler))
    sent = hub_server.sent["model.safetensors"]
    second = host(hub_client, scheduler, "second")
    assert big(second) == BIG
    assert came(hub_client, second, "peer") == DISTINCT
    assert hub_server.sent["model.safetensors"] == sent
    until(lambda: hub_client.status(second)["unverified"] == [])


def test_what_was_checked_is_served_without_a_mount(
    hub_client: Naiad, hub_server: HubServer, scheduler: Service
) -> None:
    first = host(hub_client, scheduler, "first")
    assert big(first) == BIG
    until(lambda: hub_client.status(first)["unverified"] == [])
    hub_client.umount(first)
    cache = hub_client.folder / "cache-first"
    with service(hub_client, "peer", "--scheduler", scheduler.address, "--cache", cache):
        second = host(hub_client, scheduler, "second")
        assert big(second) == BIG
        assert came(hub_client, second, "peer") == DISTINCT


def test_what_nobody_has_checked_comes_from_the_hub(
    hub_client: Naiad, hub_server: HubServer, scheduler: Service
) -> None:
    first = host(hub_client, scheduler, "first", "--prefetch", "none")
    with (first / "model.safetensors").open("rb") as file:
        file.seek(2 << 20)
        assert file.read(1 << 20) == LARGE[2 << 20 : 3 << 20]
    second = host(hub_client, scheduler, "second", "--prefetch", "none")
    with (second / "model.safetensors").open("rb") as file:
        file.seek(2 << 20)
        assert file.read(1 << 20) == LARGE[2 << 20 : 3 << 20]
    assert came(hub_client, second, "peer") == 0


def test_a_peer_that_lies_is_found_out_and_the_hub_asked(
    hub_client: Naiad, hub_server: HubServer, scheduler: Service
) -> None:
    first = host(hub_client, scheduler, "first")
    assert big(first) == BIG
    until(lambda: hub_client.status(first)["unverified"] == [])
    until(lambda: told_of_both(hub_client, scheduler))
    flip(hub_client.folder / "cache-first" / "blobs")
    second = host(hub_client, scheduler, "second")
    (second / "model.safetensors").read_bytes()
    until(lambda: (second / "model.safetensors").read_bytes() == LARGE)
    until(lambda: hub_client.status(second)["unverified"] == [])
    assert came(hub_client, second, "peer") > 0
    log = Path(str(hub_client.status(second)["log"])).read_text()
    assert "file dropped, not what the hub says file=model.safetensors" in log


def flip(blobs: Path) -> None:
    """Spoil what lies in a cache, as a host would that lies."""
    for path in blobs.glob("*.data"):
        with path.open("r+b") as file:
            file.seek(1000)
            byte = file.read(1)[0]
            file.seek(1000)
            file.write(bytes([byte ^ 1]))
