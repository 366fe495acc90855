"""``naiad build hf:``: what is packed is what the hub has, or nothing is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.command import naiad as running_naiad
from fixtures.hub import HubServer, Repository, hub
from fixtures.snapshots import of_image

DRAW = random.Random(9)
FILES = {
    "config.json": b'{"model_type": "none"}',
    "model.safetensors": DRAW.randbytes(5_000_000),
    "pytorch_model.bin": DRAW.randbytes(3_000_000),
    "sub/empty": b"",
    **{f"sub/{number:03d}.txt": DRAW.randbytes(number) for number in range(150)},
}


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub() as running:
        running.repositories["org/model"] = Repository()
        running.repositories["org/model"].commit(FILES)
        yield running


@pytest.fixture
def client(server: HubServer, tmp_path: Path) -> Iterator[Naiad]:
    home = str(tmp_path / "home")
    with running_naiad(tmp_path, HF_ENDPOINT=server.url, HF_HOME=home) as command:
        yield command


def files_of(image: Path) -> dict[str, bytes]:
    """Return the files of an image, by path."""
    found = of_image(image)
    return {path.decode(): one.data for path, one in found.items() if one.mode & 0o100000}


def test_a_model_is_built_whole(client: Naiad, server: HubServer, tmp_path: Path) -> None:
    client.run("build", "hf:org/model", tmp_path / "image")
    assert files_of(tmp_path / "image") == FILES
    client.run("build", "hf:org/model@main", tmp_path / "again")
    assert (tmp_path / "again/image.boot").read_bytes() == (
        tmp_path / "image/image.boot"
    ).read_bytes()


def test_patterns_choose_files(client: Naiad, tmp_path: Path) -> None:
    options = ("--allow", "*.json", "--allow", "*.bin", "--ignore", "pytorch*")
    client.run("build", *options, "hf:org/model", tmp_path / "image")
    assert list(files_of(tmp_path / "image")) == ["config.json"]
    done = client.run("build", "--allow", "none", "hf:org/model", tmp_path / "none", ok=False)
    assert done.returncode == 1
    assert "none of its 154 files" in done.stderr


def test_a_file_that_is_not_what_the_hub_says_makes_no_image(
    client: Naiad, server: HubServer, tmp_path: Path
) -> None:
    for path in ("model.safetensors", "config.json"):
        server.repositories["org/model"].wrong = {path}
        done = client.run("build", "hf:org/model", tmp_path / "image", ok=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert f"damaged: {path}: its bytes do not match" in done.stderr
        assert not (tmp_path / "image").exists()


def test_the_token_stays_with_the_hub(client: Naiad, server: HubServer, tmp_path: Path) -> None:
    server.repositories["org/model"].token = "hf_secret"
    client.environment["HF_TOKEN"] = "hf_secret"
    client.run("build", "hf:org/model", tmp_path / "image")
    assert {asked.authorization for asked in server.of_host("127.0.0.1")} == {"Bearer hf_secret"}
    assert {asked.authorization for asked in server.of_host("localhost")} == {""}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("hf:org/none", "not found: hf:org/none: no such repository, or one that needs a token"),
        ("hf:org/model@v9", "not found: hf:org/model: no revision v9"),
        ("hf:org/mod el", "malformed: not a model of a hub"),
    ],
)
def test_what_cannot_be_had_is_one_line(client: Naiad, tmp_path: Path, name: str, why: str) -> None:
    done = client.run("build", name, tmp_path / "image", ok=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert why in done.stderr
