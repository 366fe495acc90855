"""``naiad build hf:``: what is packed is what the hub has, or nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.hub import FILES, HubServer
from fixtures.snapshots import of_image


def files_of(image: Path) -> dict[str, bytes]:
    """Return the files of an image, by path."""
    found = of_image(image)
    return {path.decode(): one.data for path, one in found.items() if one.mode & 0o100000}


def test_a_model_is_built_whole(hub_client: Naiad, hub_server: HubServer, tmp_path: Path) -> None:
    hub_client.run("build", "hf:org/model", tmp_path / "image")
    assert files_of(tmp_path / "image") == FILES
    hub_client.run("build", "hf:org/model@main", tmp_path / "again")
    assert (tmp_path / "again/image.boot").read_bytes() == (
        tmp_path / "image/image.boot"
    ).read_bytes()


def test_patterns_choose_files(hub_client: Naiad, tmp_path: Path) -> None:
    options = (
        "--allow",
        "*.json",
        "--allow",
        "*.bin",
        "--ignore",
        "*model.bin",
        "--ignore",
        "sub/",
    )
    hub_client.run("build", *options, "hf:org/model", tmp_path / "image")
    assert list(files_of(tmp_path / "image")) == ["config.json"]
    done = hub_client.run("build", "--allow", "none", "hf:org/model", tmp_path / "none", ok=False)
    assert done.returncode == 1
    assert "none of its 155 files" in done.stderr


def test_a_file_that_is_not_what_the_hub_says_makes_no_image(
    hub_client: Naiad, hub_server: HubServer, tmp_path: Path
) -> None:
    for path in ("model.safetensors", "config.json"):
        hub_server.repositories["org/model"].wrong = {path}
        done = hub_client.run("build", "hf:org/model", tmp_path / "image", ok=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert f"damaged: {path}: its bytes do not match" in done.stderr
        assert not (tmp_path / "image").exists()


def test_the_token_stays_with_the_hub(
    hub_client: Naiad, hub_server: HubServer, tmp_path: Path
) -> None:
    hub_server.repositories["org/model"].token = "hf_secret"
    hub_client.environment["HF_TOKEN"] = "hf_secret"
    hub_client.run("build", "hf:org/model", tmp_path / "image")
    assert {asked.authorization for asked in hub_server.of_host("127.0.0.1")} == {
        "Bearer hf_secret"
    }
    assert {asked.authorization for asked in hub_server.of_host("localhost")} == {""}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("hf:org/none", "not found: hf:org/none: no such repository, or one that needs a token"),
        ("hf:org/model@v9", "not found: hf:org/model: no revision v9"),
        ("hf:org/mod el", "malformed: not a model of a hub"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    hub_client: Naiad, tmp_path: Path, name: str, why: str
) -> None:
    done = hub_client.run("build", name, tmp_path / "image", ok=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert why in done.stderr
