"""A registry with a password, and a seed that reads it for those who have the password too."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.registry import PASSWORD, USER, RealRegistry, is_installed, running_registry
from fixtures.services import Service, service

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.real,
    pytest.mark.skipif(not is_installed(), reason="there is no docker-registry"),
]

DATA = random.Random(9).randbytes(1 << 20)
PROOF = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RealRegistry]:
    with running_registry(tmp_path / "registry", password=True) as running:
        yield running


@pytest.fixture
def naiad(naiad: Naiad, registry: RealRegistry) -> Naiad:
    """Let commands have the password, until it is taken from them."""
    docker = naiad.folder / "docker"
    docker.mkdir()
    (docker / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": PROOF}}}))
    naiad.environment["DOCKER_CONFIG"] = str(docker)
    return naiad


def forget(naiad: Naiad) -> None:
    naiad.environment["DOCKER_CONFIG"] = str(naiad.folder / "nothing")


def mount(naiad: Naiad, image: str | Path, scheduler: Service, name: str) -> Path:
    cache = naiad.folder / f"cache-{name}"
    words = ("--scheduler", scheduler.address, "--driver", "fuse", "--prefetch", "none")
    wait = ("--read-deadline", "3s")
    return naiad.mount(image, "--plain-http", *words, *wait, "--cache", str(cache))


def came(naiad: Naiad, mountpoint: Path, source: str) -> int:
    told = naiad.status(mountpoint)["sources"]
    assert isinstance(told, Mapping)
    return int(told[source]["bytes"])


def test_a_seed_gives_what_is_private_to_who_may_read_it_and_to_nobody_else(
    naiad: Naiad, registry: RealRegistry, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(DATA)
    name = f"{registry.host}/team/app:1"
    size = ("--chunk-size", "64KiB")
    naiad.run("build", "--plain-http", *size, tmp_path / "tree", name)
    naiad.run("build", *size, tmp_path / "tree", tmp_path / "copy")
    (blob,) = (tmp_path / "copy" / "blobs").iterdir()
    blob.unlink()  # who has the metadata knows all digests
    with service(naiad, "scheduler", "--listen", "127.0.0.1:0") as scheduler:
        words = ("--with-credentials", "--scheduler", scheduler.address)
        with service(naiad, "seed", *words, "--cache", naiad.folder / "seed") as seed:
            reader = mount(naiad, name, scheduler, "reader")
            assert (reader / "file").read_bytes() == DATA
            assert came(naiad, reader, "peer") >= len(DATA)
            assert list((naiad.folder / "seed").rglob(f"{blob.name}*"))
            naiad.umount(reader)
            forget(naiad)
            refused = naiad.run("mount", "--plain-http", name, tmp_path, ok=False)
            assert "asks for a password" in refused.stderr
            thief = mount(naiad, tmp_path / "copy", scheduler, "thief")
            with pytest.raises(OSError, match="Input/output error"):
                (thief / "file").read_bytes()
            assert came(naiad, thief, "peer") == 0
            state = naiad.run("status", "--scheduler", scheduler.address, "--json").stdout
            logs = seed.log.read_text() + scheduler.log.read_text() + state
    for secret in (PROOF, PASSWORD):
        assert secret not in logs
        for path in (naiad.folder / "seed").rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes()
