"""``naiad mount hf:``: lazy, on the transport's trust until a file's checksum was right."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.hub import FILES, LARGE, HubServer, Repository
from fixtures.mounting import until

pytestmark = pytest.mark.kernel


def content(mount: Path) -> dict[str, bytes]:
    """Return the files of a mount, by path."""
    paths = (path for path in sorted(mount.rglob("*")) if path.is_file())
    return {str(path.relative_to(mount)): path.read_bytes() for path in paths}


def test_a_mounted_model_is_what_the_hub_has(hub_client: Naiad, hub_server: HubServer) -> None:
    mount = hub_client.mount("hf:org/model")
    assert hub_server.sent.total() < 40_000, "nothing but listings"
    assert content(mount) == FILES
    until(lambda: hub_client.status(mount)["unverified"] == [])
    status = hub_client.status(mount)
    assert status["commit"] == hub_server.repositories["org/model"].branches["main"]
    assert sum(hub_server.sent[path] for path in FILES) == sum(map(len, FILES.values())) - len(
        LARGE
    )
    assert os.getxattr(mount / "config.json", "user.naiad.checksum").startswith(b"git:")


def test_what_is_here_in_part_is_unverified(hub_client: Naiad) -> None:
    mount = hub_client.mount("hf:org/model", "--prefetch", "none")
    assert (mount / "config.json").read_bytes() == FILES["config.json"]
    assert hub_client.status(mount)["unverified"] == []
    with (mount / "model.safetensors").open("rb") as file:
        file.seek(2_500_000)
        assert file.read(10) == LARGE[2_500_000:2_500_010]
    assert hub_client.status(mount)["unverified"] == ["model.safetensors"]
    assert "model.safetensors" in hub_client.run("status", mount).stdout


def test_a_file_of_which_most_was_read_is_fetched_to_its_end_and_checked(hub_client: Naiad) -> None:
    mount = hub_client.mount("hf:org/model")
    with (mount / "model.safetensors").open("rb") as file:
        for start in (0, 1 << 20, 3 << 20):
            assert os.pread(file.fileno(), 10, start) == LARGE[start : start + 10]
    until(lambda: hub_client.status(mount)["unverified"] == [], patience=40)
    with (mount / "model.safetensors").open("rb") as file:
        assert file.read() == LARGE


def test_what_was_checked_is_shared_with_other_revisions(
    hub_client: Naiad, hub_server: HubServer
) -> None:
    mount = hub_client.mount("hf:org/model")
    assert content(mount) == FILES
    until(lambda: hub_client.status(mount)["unverified"] == [])
    hub_server.repositories["org/model"].commit({**FILES, "config.json": b"{}"})
    sent = hub_server.sent["model.safetensors"]
    newer = hub_client.mount("hf:org/model")
    assert (newer / "config.json").read_bytes() == b"{}"
    assert (newer / "model.safetensors").read_bytes() == LARGE
    assert hub_server.sent["model.safetensors"] == sent
    assert hub_client.status(newer)["unverified"] == []
    hub_client.umount(mount)
    hub_client.umount(newer)
    shared = {path.name for path in (hub_client.cache / "blobs").glob("*.data")}
    apart = {path.name for path in (hub_client.cache / "apart").glob("*/*.data")}
    assert len(shared) == 2
    assert len(apart) == 2, "the small files of each"


def test_a_revision_that_moves_changes_nothing(hub_client: Naiad, hub_server: HubServer) -> None:
    mount = hub_client.mount("hf:org/model")
    (mount / "config.json").read_bytes()
    hub_server.repositories["org/model"].commit({"config.json": b"{}"})
    daemon = hub_client.status(mount)["daemon"]
    assert isinstance(daemon, int)
    os.kill(daemon, signal.SIGKILL)
    assert content(mount) == FILES
    assert hub_client.status(mount)["restarts"] == 1


def test_bytes_that_were_wrong_are_dropped_and_fetched_again(
    hub_client: Naiad, hub_server: HubServer
) -> None:
    repository = hub_server.repositories["org/model"]
    repository.wrong = {"model.safetensors", "config.json"}
    mount = hub_client.mount("hf:org/model")
    with pytest.raises(OSError, match="Input/output error"):
        (mount / "config.json").read_bytes()
    read = (mount / "model.safetensors").read_bytes()
    assert read != LARGE, "believed, because of where it came from"
    repository.wrong = set()
    until(lambda: (mount / "model.safetensors").read_bytes() == LARGE)
    until(lambda: hub_client.status(mount)["unverified"] == [])
    assert (mount / "config.json").read_bytes() == FILES["config.json"]
    log = Path(str(hub_client.status(mount)["log"])).read_text()
    assert "file dropped, not what the hub says file=model.safetensors" in log


def test_a_file_that_is_always_wrong_is_given_up(hub_client: Naiad, hub_server: HubServer) -> None:
    hub_server.repositories["org/model"].wrong = {"model.safetensors"}
    mount = hub_client.mount("hf:org/model")

    def fails() -> bool:
        try:
            (mount / "model.safetensors").read_bytes()
        except OSError:
            return True
        return False

    until(fails)
    assert "does not match its checksum" in str(hub_client.status(mount)["last_error"])
    assert (mount / "pytorch_model.bin").read_bytes() == FILES["pytorch_model.bin"]


def test_a_pinned_commit_needs_no_hub_that_knows_it(
    hub_client: Naiad, hub_server: HubServer
) -> None:
    commit = hub_server.repositories["org/model"].branches["main"]
    mount = hub_client.mount(f"hf:org/model@{commit}")
    assert content(mount) == FILES
    until(lambda: hub_client.status(mount)["unverified"] == [])
    hub_client.umount(mount)
    hub_server.repositories.clear()
    assert content(hub_client.mount(f"hf:org/model@{commit}")) == FILES


def test_patterns_choose_what_is_mounted(hub_client: Naiad) -> None:
    mount = hub_client.mount("hf:org/model", "--allow", "*.json", "--allow", "*.bin")
    assert sorted(content(mount)) == ["config.json", "pytorch_model.bin", "sub/small.bin"]


def test_everything_fetched_ahead_is_checked(hub_client: Naiad) -> None:
    mount = hub_client.mount("hf:org/model", "--prefetch", "all")
    until(lambda: hub_client.status(mount)["pending_chunks"] == 0)
    until(lambda: hub_client.status(mount)["unverified"] == [])
    assert content(mount) == FILES


def downloaded(hub_client: Naiad, program: str, **environment: str) -> list[str]:
    """Run a program that uses the hub's own client; return the lines that it prints."""
    told = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", f"from huggingface_hub import *\n{program}"],
        env=hub_client.environment | told,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_hubs_own_client_downloads_what_the_mount_shows(
    hub_client: Naiad, tmp_path: Path
) -> None:
    program = "print(snapshot_download('org/model'))"
    (folder,) = downloaded(hub_client, program, HF_HUB_CACHE=str(tmp_path / "downloads"))
    mount = hub_client.mount("hf:org/model")
    assert content(Path(folder)) == content(mount) == FILES
    assert Path(folder).name == hub_client.status(mount)["commit"]


def test_a_mounted_model_is_found_without_a_network(
    hub_client: Naiad, hub_server: HubServer, tmp_path: Path
) -> None:
    cache = tmp_path / "hub"
    mount = hub_client.mount("hf:org/model", "--hf-cache", str(cache))
    asked = len(hub_server.asked)
    program = """
print(hf_hub_download('org/model', 'model.safetensors'))
print(snapshot_download('org/model'))
print([repo.repo_id for repo in scan_cache_dir().repos])
"""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    file, folder, repositories = downloaded(hub_client, program, **offline)
    assert len(hub_server.asked) == asked
    assert Path(file).read_bytes() == LARGE
    assert content(Path(folder) / ".") == FILES
    assert repositories == "['org/model']"
    hub_client.umount(mount)
    assert not list(cache.glob("models--org--model/*/*"))


def test_a_model_that_was_built_is_found_as_well(hub_client: Naiad, tmp_path: Path) -> None:
    hub_client.run("build", "hf:org/model", tmp_path / "image")
    cache = tmp_path / "hub"
    mount = hub_client.mount(tmp_path / "image", "--hf-cache", str(cache))
    (snapshot,) = (cache / "models--org--model" / "snapshots").iterdir()
    assert (cache / "models--org--model" / "refs" / "main").read_text() == snapshot.name
    assert (snapshot / "config.json").read_bytes() == FILES["config.json"]
    hub_client.umount(mount)
    (tmp_path / "plain").mkdir()
    hub_client.run("build", tmp_path / "plain", tmp_path / "other")
    options = ("--hf-cache", cache)
    done = hub_client.run("mount", *options, tmp_path / "other", mount, ok=False)
    assert "--hf-cache: the image was not made of a hub's model" in done.stderr


def test_what_was_downloaded_before_stays(
    hub_client: Naiad, hub_server: HubServer, tmp_path: Path
) -> None:
    commit = hub_server.repositories["org/model"].branches["main"]
    folder = tmp_path / "hub" / "models--org--model"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "theirs").touch()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    mount = hub_client.mount("hf:org/model", "--hf-cache", str(tmp_path / "hub"))
    hub_client.umount(mount)
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
def test_what_cannot_be_is_said(
    hub_client: Naiad, words: tuple[str, ...], code: int, why: str
) -> None:
    mountpoint = hub_client.folder / "mnt"
    mountpoint.mkdir()
    done = hub_client.run(*(mountpoint if word == "mnt" else word for word in words), ok=False)
    assert done.returncode == code
    assert why in done.stderr


def test_a_model_of_more_large_files_than_an_image_has_blobs_is_mounted(
    hub_client: Naiad, hub_server: HubServer
) -> None:
    files = {f"part-{n:04}.safetensors": bytes(1 << 20) + b"%04d" % n for n in range(300)}
    hub_server.repositories["org/many"] = Repository()
    hub_server.repositories["org/many"].commit({**files, "config.json": b"{}"})
    mount = hub_client.mount("hf:org/many", "--prefetch", "none")
    chosen = ("part-0000.safetensors", "part-0252.safetensors", "part-0299.safetensors")
    for name in chosen:
        assert (mount / name).read_bytes() == files[name]
    until(lambda: hub_client.status(mount)["unverified"] == [])
    assert sum(hub_server.sent[name] for name in files) == sum(len(files[n]) for n in chosen)
    shared = {path.stem for path in (hub_client.cache / "blobs").glob("*.data")}
    assert shared == {hashlib.sha256(files[name]).hexdigest() for name in chosen}
