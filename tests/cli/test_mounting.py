from __future__ import annotations

import filecmp
import hashlib
import os
import random
import signal
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.mounting import until
from fixtures.rangeserver import RangeServer

pytestmark = pytest.mark.kernel


def _same(tree: Path, mount: Path) -> bool:
    compared = filecmp.dircmp(tree, mount)
    names = [*compared.common_files, "etc/motd"]
    _, differing, failing = filecmp.cmpfiles(tree, mount, names, shallow=False)
    return not (compared.left_only or compared.right_only or differing or failing)


def test_a_mounted_image_is_the_tree_it_was_built_from(
    naiad: Naiad, tree: Path, image: Path
) -> None:
    mount = naiad.mount(image)
    assert _same(tree, mount)
    assert (mount / "link").readlink() == Path("etc/motd")


def test_only_what_is_read_is_fetched(naiad: Naiad, image: Path) -> None:
    with RangeServer(image) as server:
        mount = naiad.mount(server.url)
        asked = server.statistics.sent
        assert (mount / "etc/motd").read_text() == "welcome\n"
        assert server.statistics.sent - asked < 1000
        status = naiad.status(mount)
        assert status["ready_bytes"] == 8
        sources = status["sources"]
        assert isinstance(sources, dict)
        assert sources["origin"]["chunks"] == 1


def test_what_was_fetched_once_is_not_fetched_again(naiad: Naiad, tree: Path, image: Path) -> None:
    with RangeServer(image) as server:
        first = naiad.mount(server.url)
        assert _same(tree, first)
        naiad.umount(first)
        sent = server.statistics.sent
        second = naiad.mount(server.url)
        assert _same(tree, second)
        assert server.statistics.sent - sent == (image / "image.json").stat().st_size


def test_a_killed_daemon_is_a_pause(naiad: Naiad, tree: Path, image: Path) -> None:
    mount = naiad.mount(image)
    daemon = naiad.status(mount)["daemon"]
    assert isinstance(daemon, int)
    os.kill(daemon, signal.SIGKILL)
    assert _same(tree, mount)
    assert naiad.status(mount)["restarts"] == 1
    last_error_at = naiad.status(mount)["last_error_at"]
    assert isinstance(last_error_at, float)
    assert last_error_at > 0


def test_everything_can_be_fetched_ahead(naiad: Naiad, tree: Path, image: Path) -> None:
    mount = naiad.mount(image, "--prefetch", "all")
    assert _same(tree, mount)
    assert naiad.status(mount)["ready_bytes"] == 3_000_008


@pytest.fixture
def many(naiad: Naiad, tmp_path: Path) -> tuple[Path, int]:
    """Build an image of many files, each third of them listed, the last first; their bytes, too."""
    tree = tmp_path / "many"
    listed: list[str] = []
    tree.mkdir()
    draw = random.Random(3)
    for number in range(600):
        (tree / f"{number:03d}").write_bytes(draw.randbytes(draw.randrange(1, 50_000)))
        if number % 3 == 0:
            listed.insert(0, f"/{number:03d}\n")
    (tmp_path / "list").write_text("# what a start reads\n" + "".join(listed))
    naiad.run("build", "--prefetch-list", tmp_path / "list", tree, tmp_path / "many-image")
    size = sum((tree / name.strip("/\n")).stat().st_size for name in listed)
    return tmp_path / "many-image", size


def test_what_the_image_lists_comes_in_few_requests(naiad: Naiad, many: tuple[Path, int]) -> None:
    image, size = many
    with RangeServer(image) as server:
        mount = naiad.mount(server.url)
        until(lambda: naiad.status(mount)["ready_bytes"] == size)
        blob = [asked for asked in server.statistics.ranges if asked[0].startswith("/blobs/")]
        assert len(blob) <= size // (4 << 20) + 2
        assert min(start for _, start, _ in blob) == 0
        assert sum(stop - start for _, start, stop in blob) == size


def test_nothing_is_fetched_ahead_unless_wanted(naiad: Naiad, many: tuple[Path, int]) -> None:
    image, _ = many
    with RangeServer(image) as server:
        mount = naiad.mount(server.url, "--prefetch", "none")
        (mount / "001").read_bytes()
        (chunk,) = [asked for asked in server.statistics.ranges if asked[0].startswith("/blobs/")]
        assert chunk[2] - chunk[1] == (mount / "001").stat().st_size


def test_paths_that_are_not_there_are_one_line(naiad: Naiad, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("no/such\nlink\nnone\n")
    said = naiad.run("build", "--prefetch-list", tmp_path / "list", tree, tmp_path / "image")
    assert said.stderr == "naiad: not in the image, so not fetched ahead: no/such, none\n"


def test_an_unmounted_image_leaves_nothing_behind(naiad: Naiad, image: Path) -> None:
    mount = naiad.mount(image)
    assert naiad.run("status").stdout.count(str(mount)) == 1
    naiad.umount(mount)
    assert naiad.run("status").stdout == ""
    assert naiad.json("status", "--json") == []
    assert list(mount.iterdir()) == []


def test_an_image_that_cannot_be_opened_is_not_mounted(naiad: Naiad, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    done = naiad.run("mount", tmp_path / "nothing", tmp_path / "mnt", ok=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no such file or directory" in done.stderr
    assert naiad.run("status").stdout == ""


def test_a_pin_that_does_not_fit_is_not_mounted(naiad: Naiad, image: Path) -> None:
    mount = image.parent / "mnt"
    mount.mkdir()
    done = naiad.run("mount", "--digest", "sha256:" + "0" * 64, image, mount, ok=False)
    assert done.returncode == 1
    assert not mount.is_mount()


def test_a_mountpoint_that_is_not_there_is_one_line(naiad: Naiad, image: Path) -> None:
    done = naiad.run("mount", image, image.parent / "nowhere", ok=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nowhere" in done.stderr


def test_nothing_can_be_unmounted_where_nothing_is(naiad: Naiad, tmp_path: Path) -> None:
    done = naiad.run("umount", tmp_path, ok=False)
    assert done.returncode == 1
    assert "not mounted" in done.stderr


def test_a_password_in_a_url_is_not_shown(naiad: Naiad, image: Path) -> None:
    with RangeServer(image) as server:
        mount = naiad.mount(server.url.replace("://", "://user:secret@"))
        status = naiad.run("status", "--json", mount).stdout
        mounts = Path("/proc/mounts").read_text()
        logs = "".join(log.read_text() for log in naiad.state.glob("*/log"))
    assert "secret" not in status + mounts + logs


def test_bytes_in_use_stay_in_the_cache(naiad: Naiad, tree: Path, image: Path) -> None:
    mount = naiad.mount(image)
    assert _same(tree, mount)
    naiad.run("cache", "gc")
    assert naiad.status(mount)["ready_bytes"] == 3_000_008
    naiad.umount(mount)
    naiad.run("cache", "gc")
    assert naiad.json("cache", "ls", "--json") == []


def test_rot_in_the_cache_is_found_and_mended(naiad: Naiad, tree: Path, image: Path) -> None:
    mount = naiad.mount(image)
    assert _same(tree, mount)
    naiad.umount(mount)
    (data,) = (naiad.cache / "blobs").glob("*.data")
    with data.open("r+b") as file:
        file.seek(1_500_000)
        file.write(b"rotten")
    done = naiad.run("cache", "verify", ok=False)
    assert done.returncode == 1
    assert "1 were bad and are dropped" in done.stdout
    assert naiad.run("cache", "verify").stdout.endswith("0 were bad and are dropped\n")
    assert _same(tree, naiad.mount(image))


def test_metadata_that_is_changed_in_use_is_noticed_and_fetched_anew(
    naiad: Naiad, tree: Path, image: Path
) -> None:
    mount = naiad.mount(image)
    daemon = naiad.status(mount)["daemon"]
    (kept,) = (naiad.cache / "bootstraps").glob("sha256-*")
    with kept.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    until(lambda: naiad.status(mount)["daemon"] != daemon)
    assert "was changed on the disk" in str(naiad.status(mount)["last_error"])
    assert _same(tree, mount)
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == kept.name.removeprefix("sha256-")


def test_status_tells_that_a_mount_has_lost_its_supervisor(naiad: Naiad, image: Path) -> None:
    mount = naiad.mount(image)
    assert naiad.status(mount)["supervised"] is True
    supervisor = naiad.status(mount)["supervisor"]
    assert isinstance(supervisor, int)
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: naiad.status(mount)["supervised"] is False)
    assert "unsupervised" in naiad.run("status").stdout
    told = naiad.run("status", mount).stdout
    assert "its supervisor died" in told
    assert not {"True", "False"} & {*told.split()}
