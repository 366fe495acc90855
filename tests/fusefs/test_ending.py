"""Ends of mounts: asked for, forced, with a dead origin, and by a user who is not root."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fixtures.mounting import Mount, mount, run_program, until
from fixtures.small import BIG, small
from fusefs.errors import Busy
from fusefs.mounting.mount import mounts, unmount

pytestmark = pytest.mark.kernel

SOON = 20.0
"""Seconds for what takes a few where nothing else runs. The origin is silent for ever: what waits
for it would never end by itself."""


class _Reader(threading.Thread):
    """Reads a file and keeps what came of it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.handle = os.open(path, os.O_RDONLY)
        self.errno: int | None = None
        self.start()

    def run(self) -> None:
        try:
            os.pread(self.handle, 4096, 1 << 20)
        except OSError as exc:
            self.errno = exc.errno

    def end(self) -> None:
        self.join(SOON)
        assert not self.is_alive()
        _close(self.handle)


@pytest.fixture
def silent(tmp_path: Path, image: Path) -> Iterator[Mount]:
    with mount(tmp_path, image, options=("--fault", "silent")) as made:
        yield made


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _assert_nothing_left(made: Mount, *pids: int) -> None:
    until(lambda: not made.mounted, SOON)
    until(lambda: [path.name for path in made.state.iterdir()] == ["lock"])
    until(lambda: all(_gone(pid) for pid in pids), SOON)


def test_unmounting_leaves_nothing(mounted: Mount) -> None:
    pids = mounted.supervisor, mounted.daemon
    unmount(mounted.path, state=mounted.state)
    _assert_nothing_left(mounted, *pids)


def test_plain_umount_leaves_nothing(mounted: Mount) -> None:
    pids = mounted.supervisor, mounted.daemon
    subprocess.run(["umount", mounted.path], check=True)
    _assert_nothing_left(mounted, *pids)


def test_mount_in_use_is_not_unmounted_unless_lazily(mounted: Mount) -> None:
    pids = mounted.supervisor, mounted.daemon
    handle = os.open(mounted.path / "big", os.O_RDONLY)
    with pytest.raises(Busy):
        unmount(mounted.path, state=mounted.state)
    assert os.pread(handle, 10, 0) == BIG[:10]
    unmount(mounted.path, lazy=True, state=mounted.state)
    _assert_nothing_left(mounted, *pids)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    with pytest.raises(OSError, match=r".") as caught:
        os.pread(handle, 10, 0)
    assert caught.value.errno == errno.ENOTCONN
    _close(handle)


def _close(handle: int) -> None:
    # What the kernel says of a file whose connection was cut.
    with suppress(OSError):
        os.close(handle)


@pytest.mark.parametrize("way", ["signal", "lazy umount"])
def test_stalled_origin_holds_no_end_up(silent: Mount, way: str) -> None:
    supervisor, daemon = silent.supervisor, silent.daemon
    reader = _Reader(silent.path / "big")
    until(lambda: silent.status()["waiting_reads"])
    if way == "signal":
        os.kill(supervisor, signal.SIGTERM)
        until(lambda: not any(silent.state.glob("*/control")), SOON)
    else:
        unmount(silent.path, lazy=True, state=silent.state)
    reader.end()
    assert reader.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
    _assert_nothing_left(silent, supervisor, daemon)


def test_stopped_daemon_holds_no_end_up(silent: Mount) -> None:
    supervisor, daemon = silent.supervisor, silent.daemon
    reader = _Reader(silent.path / "big")
    until(lambda: silent.status()["waiting_reads"])
    os.kill(daemon, signal.SIGSTOP)
    unmount(silent.path, lazy=True, state=silent.state)
    reader.end()
    _assert_nothing_left(silent, supervisor, daemon)


def test_stalled_reader_can_be_killed(silent: Mount) -> None:
    reader = subprocess.Popen(["cat", silent.path / "big"])
    until(lambda: silent.status()["waiting_reads"])
    reader.kill()
    assert reader.wait(SOON) == -signal.SIGKILL


def test_one_silent_origin_leaves_metadata_and_other_images_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        small().save(tmp_path / name)
    images = tmp_path / "a", tmp_path / "b"
    with mount(tmp_path, *images, options=("--fault", "silent for 4 s: a")) as made:
        direct = os.O_RDONLY | os.O_DIRECT
        stalled = [
            subprocess.Popen(
                [sys.executable, "-c", _MANY, str(made.path / "a" / "big"), str(direct)],
                stderr=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        until(lambda: int(str(made.status()["waiting_reads"])) >= 256, SOON)
        assert sorted(path.name for path in made.path.iterdir()) == ["a", "b"]
        assert (made.path / "b" / "big").read_bytes() == BIG
        assert (made.path / "a" / "folder" / "inside").stat().st_size == 6
        assert (made.path / "a" / "link").is_symlink()
        # A direct read that the daemon has taken ends by no signal, only by its answer; so on a
        # slow machine the answer, an error that the reader takes calmly, may be the quicker one.
        for reader in stalled:
            reader.kill()
            assert reader.wait(SOON) in (0, -signal.SIGKILL)


_MANY = """
import mmap, os, sys, threading
handle = os.open(sys.argv[1], int(sys.argv[2]))
def read(page):
    os.preadv(handle, [mmap.mmap(-1, 4096)], page * 4096)
for page in range(150):
    threading.Thread(target=read, args=(page,)).start()
"""


def test_second_mount_at_a_place_is_refused(mounted: Mount, image: Path) -> None:
    with pytest.raises(RuntimeError, match="already"):
        run_program(mounted.path, mounted.state, image)
    assert (mounted.path / "big").read_bytes() == BIG


def test_mounting_what_is_no_image_says_so_and_leaves_nothing(tmp_path: Path, image: Path) -> None:
    (image / "image.boot").write_bytes(bytes(8192))
    with pytest.raises(RuntimeError, match="superblock"), mount(tmp_path, image):
        pass
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["lock"]
    assert not os.path.ismount(tmp_path / "mount")


@pytest.mark.parametrize("options", ["", "allow_root", "rw"])
def test_mountpoint_and_options_are_checked(tmp_path: Path, image: Path, options: str) -> None:
    place = tmp_path / "absent"
    words = ("--options", options) if options else ()
    with pytest.raises(RuntimeError, match=r"absent|option"):
        run_program(place, tmp_path / "state", image, options=words)


def test_foreground_mount_ends_on_its_signal(tmp_path: Path, image: Path) -> None:
    place = tmp_path / "mount"
    place.mkdir()
    words = ["--foreground", str(place), str(tmp_path / "state"), str(image)]
    program = subprocess.Popen(
        [sys.executable, "-m", "fixtures.mounting", *words], cwd=Path(__file__).parents[2]
    )
    until(lambda: (place / "hello").exists())
    program.send_signal(signal.SIGTERM)
    assert program.wait(SOON) == 0
    _assert_nothing_left(Mount(place, tmp_path / "state"))


def test_interrupted_start_leaves_nothing(tmp_path: Path, image: Path) -> None:
    place, state = tmp_path / "mount", tmp_path / "state"
    place.mkdir()
    words = ["--fault", "never", str(place), str(state), str(image)]
    program = subprocess.Popen(
        [sys.executable, "-m", "fixtures.mounting", *words],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )
    made = Mount(place, state)
    until(lambda: made.mounted)
    program.send_signal(signal.SIGINT)
    assert program.wait(SOON) != 0
    until(lambda: not any(state.glob("*/control")), SOON)
    _assert_nothing_left(made)


def test_a_supervisor_with_a_fault_says_so(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from fusefs.mounting.mount import MountSpec, run_mount
        place, state = map(Path, sys.argv[1:])
        spec = MountSpec("image", place, state=state, set_up_log=lambda _: 1 / 0)
        run_mount(spec, lambda _: None)
    """
    words = [sys.executable, "-c", code, str(tmp_path), str(tmp_path / "state")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert "MountFailed: internal error: ZeroDivisionError" in done.stderr


def test_state_without_a_mount_is_forgotten(mounted: Mount) -> None:
    assert list(mounts(mounted.state / "never")) == []
    for pid in (mounted.supervisor, mounted.daemon):
        os.kill(pid, signal.SIGKILL)
    until(lambda: mounted.status()["alive"] is False)
    subprocess.run(["umount", "-l", mounted.path], check=True)
    assert any(mounted.state.glob("*/mount.json"))
    assert list(mounts(mounted.state)) == []
    assert not any(mounted.state.glob("*/mount.json"))


@pytest.fixture
def nobody() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    image = folder / "image"
    image.mkdir()
    small().save(image)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534)
    device = Path("/dev/fuse")
    mode = device.stat().st_mode
    # As udev sets it up; a bare machine may have it closed.
    device.chmod(0o666)
    yield folder
    device.chmod(mode)
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
@pytest.mark.skipif(shutil.which("fusermount3") is None, reason="there is no fusermount3")
def test_user_without_rights_mounts_through_fusermount(nobody: Path) -> None:
    place, state = nobody / "mount", nobody / "state"
    place.mkdir()
    os.chown(place, 65534, 65534)
    run_program(place, state, nobody / "image", options=("--user", "65534"))
    made = Mount(place, state)
    try:
        said = subprocess.run(
            ["cat", place / "big"], user=65534, group=65534, capture_output=True, check=True
        )
        assert said.stdout == BIG
        assert "read-ahead stays at 128 KiB" in made.log()
        table = Path("/proc/mounts").read_text().splitlines()
        line = next(line for line in table if str(place) in line)
        assert " fuse.naiad ro,nosuid,nodev," in line
        assert "allow_other" not in line
        os.kill(made.daemon, signal.SIGKILL)
        os.kill(made.supervisor, signal.SIGTERM)
        until(lambda: not any(state.glob("*/control")), SOON)
        assert not made.mounted
    finally:
        made.end()


def test_state_root_that_others_may_enter_is_refused(tmp_path: Path, image: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "mount").mkdir()
    with pytest.raises(RuntimeError, match="0700"):
        run_program(tmp_path / "mount", tmp_path / "state", image)
