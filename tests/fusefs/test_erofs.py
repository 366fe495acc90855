"""The kernel's EROFS over a session's blob files, and what is left when anybody dies."""

from __future__ import annotations

import errno
import mmap
import os
import random
import select
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fixtures.mounting import Mount, mount, run_program, until
from fixtures.readers import Readers
from fixtures.sketch import Sketch
from fixtures.small import BIG
from fusefs.errors import Busy, KernelRefuses, NotMounted
from fusefs.mounting.erofs import mount_erofs, obstacle
from fusefs.mounting.mount import mounts, unmount
from fusefs.mounting.mountinfo import MOUNTINFO, topmost
from fusefs.mounting.options import Options

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(obstacle()), reason=obstacle()),
]

EROFS = ("--driver", "erofs")


@pytest.fixture
def shown(tmp_path: Path, image: Path) -> Iterator[Mount]:
    """Mount the small image by the kernel."""
    with mount(tmp_path, image, options=EROFS) as made:
        yield made


def _table() -> list[bytes]:
    """Return what is mounted by anybody, but for other tests' own folders."""
    return [line for line in MOUNTINFO.read_bytes().splitlines() if b"fuse.naiad" in line]


def _handles(pid: int) -> list[str]:
    return [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]  # noqa: PTH115


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _assert_nothing_left(made: Mount, *pids: int) -> None:
    assert not made.mounted
    until(lambda: [path.name for path in made.state.iterdir()] == ["lock"])
    until(lambda: all(_gone(pid) for pid in pids), 6.0)


def _drop(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_only_erofs_is_seen_and_says_why(shown: Mount) -> None:
    found = topmost(shown.path)
    assert found is not None
    assert found.kind == "erofs"
    assert not any(os.fsencode(shown.state) in line for line in _table()), "the session is hidden"
    said = shown.status()
    assert (said["driver"], said["driver_reason"]) == ("erofs", "none")
    assert (shown.path / "big").read_bytes() == BIG
    assert os.getxattr(shown.path / "folder" / "inside", "user.colour") == b"blue"


def test_direct_reads_and_mappings_show_the_same_bytes(shown: Mount) -> None:
    path = shown.path / "big"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[-1000:] == BIG[-1000:]
        assert mapped[:] == BIG
        assert os.pread(file.fileno(), 5000, len(BIG) - 100) == BIG[-100:]


def test_options_hold(tmp_path: Path, image: Path) -> None:
    with mount(tmp_path, image, options=(*EROFS, "--options", "suid,noexec")) as made:
        flags = os.statvfs(made.path).f_flag
        assert flags & os.ST_RDONLY
        assert not flags & os.ST_NOSUID
        assert flags & os.ST_NODEV
        assert flags & os.ST_NOEXEC


def test_more_blobs_than_an_option_page_holds(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    drawn = Sketch(4096)
    data = {f"{number}": os.urandom(5000) for number in range(200)}
    for name, content in data.items():
        drawn.root.children[name.encode()] = drawn.file(content, int(name))
    assert len(drawn.save(image)) == 200
    with mount(tmp_path, image, options=EROFS) as made:
        assert {path.name: path.read_bytes() for path in made.path.iterdir()} == data


def test_ten_kills_of_the_daemon_are_pauses_to_its_readers(tmp_path: Path) -> None:
    data = random.Random(3).randbytes(32 << 20)
    image, truth = tmp_path / "image", tmp_path / "truth"
    image.mkdir()
    truth.write_bytes(data)
    drawn = Sketch(chunk_size=1 << 18)
    drawn.root.children[b"big"] = drawn.file(data)
    drawn.save(image)
    with mount(tmp_path, image, options=(*EROFS, "--fault", "slow")) as made:
        readers = Readers(made.path / "big", truth, faults=4, streams=2)
        for _ in range(10):
            made.kill_daemon()
            select.select([], [], [], random.uniform(0, 0.2))
        seen = readers.end()
        assert made.status()["restarts"] == 10
        pids = made.supervisor, made.daemon
        unmount(made.path, state=made.state)
        _assert_nothing_left(made, *pids)
    assert all(reader.reads for reader in seen)
    assert not any(reader.wrong or reader.errors for reader in seen), seen


def test_daemon_that_dies_while_the_kernel_mounts_is_replaced(tmp_path: Path, image: Path) -> None:
    with mount(tmp_path, image, options=(*EROFS, "--fault", "dies when asked for a blob")) as made:
        assert made.status()["restarts"] == 1
        assert (made.path / "big").read_bytes() == BIG


def test_unmounting_leaves_nothing(shown: Mount) -> None:
    pids = shown.supervisor, shown.daemon
    unmount(shown.path, state=shown.state)
    _assert_nothing_left(shown, *pids)


def test_plain_umount_leaves_nothing(shown: Mount) -> None:
    pids = shown.supervisor, shown.daemon
    subprocess.run(["umount", shown.path], check=True)
    until(lambda: not any(shown.state.glob("*/control")), 6.0)
    _assert_nothing_left(shown, *pids)


def test_processes_hold_the_device_once_and_no_mount(shown: Mount) -> None:
    for pid in (shown.supervisor, shown.daemon):
        handles = _handles(pid)
        assert handles.count("/dev/fuse") == 1
        assert "/" not in handles, "the session's mount would outlive EROFS"


def test_mount_in_use_is_not_unmounted_unless_lazily(shown: Mount) -> None:
    pids = shown.supervisor, shown.daemon
    handle = os.open(shown.path / "big", os.O_RDONLY)
    with pytest.raises(Busy):
        unmount(shown.path, state=shown.state)
    assert os.pread(handle, 10, 0) == BIG[:10]
    unmount(shown.path, lazy=True, state=shown.state)
    _assert_nothing_left(shown, *pids)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    with pytest.raises(OSError, match=r".") as caught:
        os.pread(handle, 10, 0)
    assert caught.value.errno == errno.EIO
    os.close(handle)


@pytest.mark.parametrize("way", ["signal", "lazy umount"])
def test_stalled_origin_holds_no_end_up(tmp_path: Path, image: Path, way: str) -> None:
    with mount(tmp_path, image, options=(*EROFS, "--fault", "silent")) as made:
        pids = made.supervisor, made.daemon
        errors: list[int | None] = []
        reader = threading.Thread(target=_read, args=(made.path / "big", errors))
        reader.start()
        until(lambda: made.status()["waiting_reads"])
        if way == "signal":
            os.kill(made.supervisor, signal.SIGTERM)
            until(lambda: not any(made.state.glob("*/control")))
        else:
            unmount(made.path, lazy=True, state=made.state)
        reader.join(20.0)
        assert errors == [errno.EIO]
        _assert_nothing_left(made, *pids)


def test_reads_of_who_is_gone_hold_no_unmount_up(tmp_path: Path, image: Path) -> None:
    with mount(tmp_path, image, options=(*EROFS, "--fault", "silent")) as made:
        pids = made.supervisor, made.daemon
        with subprocess.Popen(["cat", made.path / "big"], stdout=subprocess.DEVNULL) as reader:
            until(lambda: made.status()["waiting_reads"])
            reader.kill()
        work = threading.Thread(target=unmount, args=(made.path,), kwargs={"state": made.state})
        work.start()
        work.join(20.0)
        assert not work.is_alive()
        _assert_nothing_left(made, *pids)


def _read(path: Path, errors: list[int | None]) -> None:
    try:
        path.read_bytes()
    except OSError as exc:
        errors.append(exc.errno)


def test_mount_goes_on_without_its_supervisor_and_is_unmounted(shown: Mount) -> None:
    os.kill(shown.supervisor, signal.SIGKILL)
    assert (shown.path / "big").read_bytes() == BIG
    assert shown.status()["alive"] is True
    unmount(shown.path, state=shown.state)
    assert not shown.mounted
    assert list(mounts(shown.state)) == []


def test_mount_that_died_with_its_supervisor_is_recognised_and_cleaned(shown: Mount) -> None:
    shown.kill_both()
    assert shown.mounted
    _drop(shown.path / "big")
    with pytest.raises(OSError, match=r".") as caught:
        (shown.path / "big").read_bytes()
    assert caught.value.errno == errno.EIO
    assert [found.alive for found in mounts(shown.state)] == [False]
    unmount(shown.path, state=shown.state)
    assert not shown.mounted
    with pytest.raises(NotMounted):
        unmount(shown.path, state=shown.state)


def test_mount_that_died_with_its_supervisor_is_replaced(shown: Mount, image: Path) -> None:
    shown.kill_both()
    run_program(shown.path, shown.state, image, options=EROFS)
    assert (shown.path / "big").read_bytes() == BIG
    unmount(shown.path, state=shown.state)
    assert not shown.mounted, "the dead one does not lie below"


def test_other_erofs_mounts_are_not_ours(tmp_path: Path, image: Path) -> None:
    place, blobs = tmp_path / "place", list((image / "decoded").iterdir())
    place.mkdir()
    for blob in blobs:
        os.truncate(blob, -(-blob.stat().st_size // 4096) * 4096)
    with _erofs(image, blobs, place):
        with pytest.raises(NotMounted):
            unmount(place, state=tmp_path / "state")
        assert topmost(place) is not None


@contextmanager
def _erofs(image: Path, blobs: list[Path], place: Path) -> Iterator[None]:
    mount_erofs(image / "image.boot", blobs, place, Options())
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def test_image_that_the_kernel_refuses_is_shown_by_fuse(tmp_path: Path, image: Path) -> None:
    options = ("--driver", "auto", "--fault", "a device too many")
    with mount(tmp_path, image, options=options) as made:
        said = made.status()
        assert said["driver"] == "fuse"
        assert "the kernel's EROFS: " in str(said["driver_reason"])
        assert (made.path / "big").read_bytes() == BIG
        assert made.log().count("the fuse driver serves the mount") == 1


def test_asked_for_alone_the_refusal_is_an_error(tmp_path: Path, image: Path) -> None:
    options = (*EROFS, "--fault", "a device too many")
    with (
        pytest.raises(RuntimeError, match="the kernel's EROFS: "),
        mount(tmp_path, image, options=options),
    ):
        pass
    assert topmost(tmp_path / "mount") is None
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["lock"]


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(bytes(8192))
    with pytest.raises(KernelRefuses, match=r"EROFS: Invalid argument"):
        mount_erofs(tmp_path / "junk", [], tmp_path, Options())


def test_origin_that_is_silent_for_one_image_does_not_hold_up_another(tmp_path: Path) -> None:
    """Both in one session, as a snapshotter has them, each under an EROFS of its own."""
    data = {name: random.Random(name).randbytes(1 << 20) for name in ("dead", "well")}
    for name, content in data.items():
        (tmp_path / name).mkdir()
        drawn = Sketch(4096)
        drawn.root.children[b"file"] = drawn.file(content)
        drawn.save(tmp_path / name)
    images = tmp_path / "dead", tmp_path / "well"
    options = ("--blobs", "--fault", "silent for 4 s: dead")
    with (
        mount(tmp_path, *images, options=options) as made,
        _over(made, "dead") as dead,
        _over(made, "well") as well,
    ):
        errors: list[int | None] = []
        readers = [
            threading.Thread(target=_read_page, args=(dead / "file", page, errors))
            for page in range(100)
        ]
        for reader in readers:
            reader.start()
        until(lambda: int(str(made.status()["waiting_reads"])) >= 50)
        assert (well / "file").read_bytes() == data["well"]
        assert [path.name for path in dead.iterdir()] == ["file"]
        for reader in readers:
            reader.join(20.0)
        assert errors == [errno.EIO] * 100


@contextmanager
def _over(made: Mount, name: str) -> Iterator[Path]:
    place = made.path.parent / f"over-{name}"
    place.mkdir()
    folder = made.path / name
    with _erofs(made.path.parent / name, sorted(folder.iterdir()), place):
        yield place


def _read_page(path: Path, page: int, errors: list[int | None]) -> None:
    handle = os.open(path, os.O_RDONLY)
    with suppress(OSError):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
    try:
        os.pread(handle, 4096, page * 8192)
    except OSError as exc:
        errors.append(exc.errno)
    finally:
        os.close(handle)


@pytest.mark.parametrize(
    ("release", "user", "why"),
    [
        ("6.11.9-generic", 0, "needs Linux 6.12, and this is 6.11.9-generic"),
        ("5.10.0", 0, "needs Linux 6.12"),
        ("something", 0, "needs Linux 6.12"),
        ("6.12.0", 1000, "needs root"),
        ("7.0.0", 0, ""),
    ],
)
def test_obstacles_are_named(release: str, user: int, why: str) -> None:
    assert why in obstacle(release, user)
    assert bool(why) == bool(obstacle(release, user))
