"""``naiad mount hf:``: lazy, on the transport's trust until a file's checksum was right."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.command import naiad as running_naiad
from fixtures.hub import HubServer, Repository, hub
from fixtures.mounting import until

pytestmark = pytest.mark.kernel

DRAW = random.Random(9)
LARGE = DRAW.randbytes(5_000_000)
FILES = {
    "config.json": b'{"model_type": "none"}',
    "model.safetensors": LARGE,
    "sub/copy.safetensors": LARGE,
    "sub/other.bin": DRAW.randbytes(3_000_000),
    "sub/small.bin": DRAW.randbytes(300_000),
    "sub/empty": b"",
    **{f"sub/{number:03d}.txt": DRAW.randbytes(number) for number in range(1, 50)},
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


def content(mount: Path) -> dict[str, bytes]:
    """Return the files of a mount, by path."""
    paths = (path for path in sorted(mount.rglob("*")) if path.is_file())
    return {str(path.relative_to(mount)): path.read_bytes() for path in paths}


def test_a_mounted_model_is_what_the_hub_has(client: Naiad, server: HubServer) -> None:
    mount = client.mount("hf:org/model")
    assert server.sent.total() < 40_000, "nothing but listings"
    assert content(mount) == FILES
    until(lambda: client.status(mount)["unverified"] == [])
    status = client.status(mount)
    assert status["commit"] == server.repositories["org/model"].branches["main"]
    assert sum(server.sent[path] for path in FILES) == sum(map(len, FILES.values())) - len(LARGE)
    assert os.getxattr(mount / "config.json", "user.naiad.checksum").startswith(b"git:")


def test_what_is_here_in_part_is_unverified(client: Naiad) -> None:
    mount = client.mount("hf:org/model", "--prefetch", "none")
    assert (mount / "config.json").read_bytes() == FILES["config.json"]
    assert client.status(mount)["unverified"] == []
    with (mount / "model.safetensors").open("rb") as file:
        file.seek(2_500_000)
        assert file.read(10) == LARGE[2_500_000:2_500_010]
    assert client.status(mount)["unverified"] == ["model.safetensors"]
    assert "model.safetensors" in client.run("status", mount).stdout


def test_a_file_of_which_most_was_read_is_fetched_to_its_end_and_checked(client: Naiad) -> None:
    mount = client.mount("hf:org/model")
    with (mount / "model.safetensors").open("rb") as file:
        for start in (0, 1 << 20, 3 << 20):
            assert os.pread(file.fileno(), 10, start) == LARGE[start : start + 10]
    until(lambda: client.status(mount)["unverified"] == [], patience=40)
    with (mount / "model.safetensors").open("rb") as file:
        assert file.read() == LARGE


def test_what_was_checked_is_shared_with_other_revisions(client: Naiad, server: HubServer) -> None:
    mount = client.mount("hf:org/model")
    assert content(mount) == FILES
    until(lambda: client.status(mount)["unverified"] == [])
    server.repositories["org/model"].commit({**FILES, "config.json": b"{}"})
    sent = server.sent["model.safetensors"]
    newer = client.mount("hf:org/model")
    assert (newer / "config.json").read_bytes() == b"{}"
    assert (newer / "model.safetensors").read_bytes() == LARGE
    assert server.sent["model.safetensors"] == sent
    assert client.status(newer)["unverified"] == []
    client.umount(mount)
    client.umount(newer)
    shared = {path.name for path in (client.cache / "blobs").glob("*.data")}
    apart = {path.name for path in (client.cache / "apart").glob("*/*.data")}
    assert len(shared) == 2
    assert len(apart) == 2, "the small files of each"


def test_a_revision_that_moves_changes_nothing(client: Naiad, server: HubServer) -> None:
    mount = client.mount("hf:org/model")
    (mount / "config.json").read_bytes()
    server.repositories["org/model"].commit({"config.json": b"{}"})
    daemon = client.status(mount)["daemon"]
    assert isinstance(daemon, int)
    os.kill(daemon, signal.SIGKILL)
    assert content(mount) == FILES
    assert client.status(mount)["restarts"] == 1


def test_bytes_that_were_wrong_are_dropped_and_fetched_again(
    client: Naiad, server: HubServer
) -> None:
    repository = server.repositories["org/model"]
    repository.wrong = {"model.safetensors", "config.json"}
    mount = client.mount("hf:org/model")
    with pytest.raises(OSError, match="Input/output error"):
        (mount / "config.json").read_bytes()
    read = (mount / "model.safetensors").read_bytes()
    assert read != LARGE, "believed, because of where it came from"
    repository.wrong = set()
    until(lambda: (mount / "model.safetensors").read_bytes() == LARGE)
    until(lambda: client.status(mount)["unverified"] == [])
    assert (mount / "config.json").read_bytes() == FILES["config.json"]
    log = Path(str(client.status(mount)["log"])).read_text()
    assert "file dropped, not what the hub says file=model.safetensors" in log


def test_a_file_that_is_always_wrong_is_given_up(client: Naiad, server: HubServer) -> None:
    server.repositories["org/model"].wrong = {"model.safetensors"}
    mount = client.mount("hf:org/model")

    def fails() -> bool:
        try:
            (mount / "model.safetensors").read_bytes()
        except OSError:
            return True
        return False

    until(fails)
    assert "does not match its checksum" in str(client.status(mount)["last_error"])
    assert (mount / "sub" / "other.bin").read_bytes() == FILES["sub/other.bin"]


def test_a_pinned_commit_needs_no_hub_that_knows_it(client: Naiad, server: HubServer) -> None:
    commit = server.repositories["org/model"].branches["main"]
    mount = client.mount(f"hf:org/model@{commit}")
    assert content(mount) == FILES
    until(lambda: client.status(mount)["unverified"] == [])
    client.umount(mount)
    server.repositories.clear()
    assert content(client.mount(f"hf:org/model@{commit}")) == FILES


def test_patterns_choose_what_is_mounted(client: Naiad) -> None:
    mount = client.mount("hf:org/model", "--allow", "*.json", "--allow", "*.bin")
    assert sorted(content(mount)) == ["config.json", "sub/other.bin", "sub/small.bin"]


def test_everything_fetched_ahead_is_checked(client: Naiad) -> None:
    mount = client.mount("hf:org/model", "--prefetch", "all")
    until(lambda: client.status(mount)["pending_chunks"] == 0)
    until(lambda: client.status(mount)["unverified"] == [])
    assert content(mount) == FILES


def downloaded(client: Naiad, program: str, **environment: str) -> list[str]:
    """Run a program that uses the hub's own client; return the lines that it prints."""
    told = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", f"from huggingface_hub import *\n{program}"],
        env=client.environment | told,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_hubs_own_client_downloads_what_the_mount_shows(client: Naiad, tmp_path: Path) -> None:
    program = "print(snapshot_download('org/model'))"
    (folder,) = downloaded(client, program, HF_HUB_CACHE=str(tmp_path / "downloads"))
    mount = client.mount("hf:org/model")
    assert content(Path(folder)) == content(mount) == FILES
    assert Path(folder).name == client.status(mount)["commit"]


def test_a_mounted_model_is_found_without_a_network(
    client: Naiad, server: HubServer, tmp_path: Path
) -> None:
    cache = tmp_path / "hub"
    mount = client.mount("hf:org/model", "--hf-cache", str(cache))
    asked = len(server.asked)
    program = """
print(hf_hub_download('org/model', 'model.safetensors'))
print(snapshot_download('org/model'))
print([repo.repo_id for repo in scan_cache_dir().repos])
"""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    file, folder, repositories = downloaded(client, program, **offline)
    assert len(server.asked) == asked
    assert Path(file).read_bytes() == LARGE
    assert content(Path(folder) / ".") == FILES
    assert repositories == "['org/model']"
    client.umount(mount)
    assert not list(cache.glob("models--org--model/*/*"))


def test_a_model_that_was_built_is_found_as_well(client: Naiad, tmp_path: Path) -> None:
    client.run("build", "hf:org/model", tmp_path / "image")
    cache = tmp_path / "hub"
    mount = client.mount(tmp_path / "image", "--hf-cache", str(cache))
    (snapshot,) = (cache / "models--org--model" / "snapshots").iterdir()
    assert (cache / "models--org--model" / "refs" / "main").read_text() == snapshot.name
    assert (snapshot / "config.json").read_bytes() == FILES["config.json"]
    client.umount(mount)
    (tmp_path / "plain").mkdir()
    client.run("build", tmp_path / "plain", tmp_path / "other")
    options = ("--hf-cache", cache)
    done = client.run("mount", *options, tmp_path / "other", mount, ok=False)
    assert "--hf-cache: the image was not made of a hub's model" in done.stderr


def test_what_was_downloaded_before_stays(client: Naiad, server: HubServer, tmp_path: Path) -> None:
    commit = server.repositories["org/model"].branches["main"]
    folder = tmp_path / "hub" / "models--org--model"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "theirs").touch()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    mount = client.mount("hf:org/model", "--hf-cache", str(tmp_path / "hub"))
    client.umount(mount)
    assert (folder / "snapshots" / commit / "theirs").exists()
    assert (folder / "refs" / "main").read_text() == commit


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("inspect", "hf:org/model"), 1, "not supported: hf:org/model: its chunks"),
        (("check", "hf:org/model"), 1, "not supported: hf:org/model: its chunks"),
        (
            ("mount", "--driver", "erofs", "hf:org/model", "mnt"),
            2,
            "--driver erofs: only FUSE can",
        ),
        (("mount", "hf:org/none", "mnt"), 1, "mnt: hf:org/none: no such repository"),
        (("mount", "hf:org/model@v2", "mnt"), 1, "mnt: hf:org/model: no revision v2"),
    ],
)
def test_what_cannot_be_is_said(client: Naiad, words: tuple[str, ...], code: int, why: str) -> None:
    mountpoint = client.folder / "mnt"
    mountpoint.mkdir()
    done = client.run(*(mountpoint if word == "mnt" else word for word in words), ok=False)
    assert done.returncode == code
    assert why in done.stderr
