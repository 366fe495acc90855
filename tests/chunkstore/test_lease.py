"""Leases: shared by many, exclusive for one, in this process and in others."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chunkstore.lease import FolderLock, Lease


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Lease, Lease]]:
    """Give two leases of one file, as two processes have them."""
    (tmp_path / "data").touch()
    fds = [os.open(tmp_path / "data", os.O_RDWR) for _ in range(2)]
    yield Lease(fds[0]), Lease(fds[1])
    for fd in fds:
        os.close(fd)


def test_many_share(two: tuple[Lease, Lease]) -> None:
    assert all(lease.share() for lease in two for _ in range(3))


def test_nobody_is_alone_while_another_shares(two: tuple[Lease, Lease]) -> None:
    here, _ = two
    assert here.share()
    for lease in two:
        with lease.exclusive(0.01) as alone:
            assert not alone
    here.release()
    for lease in two:
        with lease.exclusive(0.01) as alone:
            assert alone


def test_nobody_shares_while_one_is_alone(two: tuple[Lease, Lease]) -> None:
    here, there = two
    with here.exclusive(0.01) as alone:
        assert alone
        assert not here.share()
        assert not there.share()
        with there.exclusive(0.01) as both:
            assert not both
    assert here.share()
    assert there.share()


def test_the_last_of_a_process_gives_it_back(two: tuple[Lease, Lease]) -> None:
    here, there = two
    assert here.share()
    assert here.share()
    here.release()
    with there.exclusive(0.01) as alone:
        assert not alone
    here.release()
    with there.exclusive(0.01) as alone:
        assert alone


@pytest.mark.parametrize("evictor", [0, 1])
def test_a_waiting_sharer_goes_on_when_the_evictor_is_done(
    two: tuple[Lease, Lease], evictor: int
) -> None:
    shared = threading.Event()

    def share() -> None:
        with two[0].shared():
            shared.set()

    with two[evictor].exclusive(1) as alone:
        assert alone
        thread = threading.Thread(target=share)
        thread.start()
        assert not shared.wait(0.05)
    thread.join(5)
    assert shared.is_set()


def test_an_evictor_waits_for_sharers_that_end_in_time(two: tuple[Lease, Lease]) -> None:
    here, there = two
    assert here.share()
    assert there.share()

    def release() -> None:
        here.release()
        there.release()

    timer = threading.Timer(0.05, release)
    timer.start()
    with here.exclusive(5) as alone:
        assert alone
    timer.join()


def test_a_lease_that_outlives_its_file_touches_no_other(two: tuple[Lease, Lease]) -> None:
    here, there = two
    assert here.share()
    here.close()
    with there.exclusive(0.01) as alone:
        assert alone
        here.release()
        assert not here.share()
    with pytest.raises(OSError, match="closed"), here.shared():
        pass


def test_a_folder_lock_is_one_persons(tmp_path: Path) -> None:
    here, there = FolderLock(tmp_path / "lock"), FolderLock(tmp_path / "lock")
    with here:
        assert not there.take()
        assert not here.take()
    assert there.take()
    assert not here.take()
    there.give()
    with here, pytest.raises(RuntimeError), there_is_an_error():
        pass
    assert there.take()
    there.give()
    here.close()
    there.close()


class there_is_an_error:  # noqa: N801
    def __enter__(self) -> None:
        raise RuntimeError

    def __exit__(self, *exc: object) -> None:
        pass
