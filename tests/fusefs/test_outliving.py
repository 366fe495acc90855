"""Daemons that die, freeze and kill themselves, under a real mount."""

from __future__ import annotations

import errno
import os
import random
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from fixtures.mounting import Mount, mount, run_program, until
from fixtures.readers import Readers
from fixtures.sketch import Sketch
from fixtures.small import BIG, FATAL
from fusefs.errors import NotMounted
from fusefs.mounting.kernel import resends
from fusefs.mounting.mount import mounts, unmount

pytestmark = pytest.mark.kernel
needs_resend = pytest.mark.skipif(not resends(), reason="this kernel is older than 6.9")


@needs_resend
def test_ten_kills_of_the_daemon_are_pauses_to_its_readers(tmp_path: Path) -> None:
    data = random.Random(3).randbytes(32 << 20)
    image, truth = tmp_path / "image", tmp_path / "truth"
    image.mkdir()
    truth.write_bytes(data)
    drawn = Sketch(chunk_size=1 << 18)
    drawn.root.children[b"big"] = drawn.file(data)
    drawn.save(image)
    with mount(tmp_path, image, options=("--fault", "slow")) as made:
        readers = Readers(made.path / "big", truth, faults=4, streams=2)
        for _ in range(10):
            made.kill_daemon()
            select.select([], [], [], random.uniform(0, 0.2))
        seen = readers.end()
        assert made.status()["restarts"] == 10
    assert all(reader.reads for reader in seen)
    assert not any(reader.wrong or reader.errors for reader in seen), seen
    longest = max(reader.longest for reader in seen)
    sys.stdout.write(f"longest wait over ten kills: {longest:.3f} s\n")


@needs_resend
def test_open_files_and_directories_go_on_after_a_restart(mounted: Mount) -> None:
    with (mounted.path / "big").open("rb", buffering=0) as file:
        assert file.read(10) == BIG[:10]
        before = [entry.inode() for entry in os.scandir(mounted.path)]
        mounted.kill_daemon()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == BIG[10:]
        assert [entry.inode() for entry in os.scandir(mounted.path)] == before


def test_requests_do_not_wake_the_supervisor(mounted: Mount) -> None:
    def woken() -> int:
        status = Path(f"/proc/{mounted.status()['supervisor']}/status").read_text()
        return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    before, answered = woken(), int(str(mounted.status()["answered"]))
    for number in range(2000):
        assert not (mounted.path / f"absent {number}").exists()
    assert int(str(mounted.status()["answered"])) >= answered + 2000
    assert woken() < before + 200


@needs_resend
def test_kills_of_an_idle_daemon_are_never_too_many(mounted: Mount) -> None:
    for _ in range(7):
        mounted.kill_daemon()
    assert (mounted.path / "big").read_bytes() == BIG


@needs_resend
def test_request_that_kills_every_daemon_ends_the_mount_and_says_so(
    tmp_path: Path, image: Path
) -> None:
    with mount(tmp_path, image, options=("--fault", "crash")) as made:
        assert (made.path / "hello").read_text() == "hello world\n"
        with pytest.raises(OSError, match=r"."):
            (made.path / "poison").read_bytes()
        until(lambda: made.status()["alive"] is False)
        assert "5 daemons died within 30 s" in str(made.status()["last_error"])
        assert "SIGSEGV" in str(made.status()["last_error"])
        with pytest.raises(OSError, match=r".") as caught:
            (made.path / "big").read_bytes()
        assert caught.value.errno == errno.ENOTCONN
        assert made.mounted
        unmount(made.path, state=made.state)
        assert not made.mounted
        assert list(mounts(made.state)) == []


@needs_resend
def test_daemon_that_answers_no_more_is_replaced(tmp_path: Path, image: Path) -> None:
    mark = tmp_path / "image" / "frozen"
    with mount(tmp_path, image, options=("--fault", "freeze", "--heartbeat", "2")) as made:
        assert (made.path / "poison").read_bytes() == FATAL
        assert mark.exists()
        assert "did not answer" in str(made.status()["last_death"])


@needs_resend
def test_dead_daemon_that_cannot_be_reaped_is_replaced_all_the_same(
    tmp_path: Path, image: Path
) -> None:
    with mount(tmp_path, image, options=("--fault", "stuck")) as made:
        pid = made.daemon
        reader = subprocess.Popen(["cat", made.path / "poison"], stdout=subprocess.PIPE)
        until(lambda: int(str(made.status()["waiting_reads"])) >= 2)
        os.kill(pid, signal.SIGKILL)
        said, _ = reader.communicate(timeout=20)
        assert said == FATAL
        assert made.status()["restarts"] == 1
        until(lambda: not Path(f"/proc/{pid}").exists())


def test_without_resend_a_death_costs_open_files_and_the_mount_is_made_anew(
    tmp_path: Path, image: Path
) -> None:
    with mount(tmp_path, image, options=("--no-resend",)) as made:
        handle = os.open(made.path / "big", os.O_RDONLY)
        pid = made.daemon
        os.kill(pid, signal.SIGKILL)
        until(lambda: made.daemon != pid)
        with pytest.raises(OSError, match=r".") as caught:
            os.pread(handle, 10, 2 << 20)
        assert caught.value.errno == errno.ENOTCONN
        with suppress(OSError):
            os.close(handle)
        assert (made.path / "big").read_bytes() == BIG
        unmount(made.path, state=made.state)
        assert not made.mounted


def test_mount_goes_on_without_its_supervisor_and_is_unmounted(mounted: Mount) -> None:
    os.kill(mounted.supervisor, signal.SIGKILL)
    assert (mounted.path / "big").read_bytes() == BIG
    assert mounted.status()["alive"] is True
    assert mounted.status()["supervised"] is False
    unmount(mounted.path, state=mounted.state)
    assert not mounted.mounted
    assert list(mounts(mounted.state)) == []


def test_mount_that_died_with_its_supervisor_is_recognised_and_cleaned(mounted: Mount) -> None:
    mounted.kill_both()
    assert mounted.mounted
    assert "killed" in str(mounted.status()["last_error"])
    assert [found.alive for found in mounts(mounted.state)] == [False]
    unmount(mounted.path, state=mounted.state)
    assert not mounted.mounted
    with pytest.raises(NotMounted):
        unmount(mounted.path, state=mounted.state)


def test_mount_that_died_with_its_supervisor_is_replaced(mounted: Mount, image: Path) -> None:
    mounted.kill_both()
    run_program(mounted.path, mounted.state, image)
    assert (mounted.path / "big").read_bytes() == BIG
    unmount(mounted.path, state=mounted.state)
    assert not mounted.mounted, "the dead one does not lie below"
