from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from fusefs.containers.claims import claimed, control_of
from fusefs.containers.pullservice import PullRequest, Say, serve_pulls
from fusefs.errors import Busy, FusefsError


@pytest.fixture
def address(tmp_path: Path) -> Path:
    return tmp_path / "sockets/naiad.sock"


@pytest.fixture
def listener(address: Path) -> Iterator[Path]:
    """Yield the address's socket for pulls, at which somebody listens."""
    address.parent.mkdir()
    path = control_of(address)
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(path))
        listening.listen(1)
        yield path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("root", "name", "said"),
    [
        ("root", "naiad.sock", "/root: another snapshotter uses it"),
        ("root", "other.sock", "/root: another snapshotter uses it"),
        ("other", "naiad.sock", "naiad.sock: somebody listens there already"),
    ],
)
def test_a_root_and_an_address_are_each_had_by_one(
    tmp_path: Path, address: Path, root: str, name: str, said: str
) -> None:
    other = tmp_path / root, address.with_name(name)
    with claimed(tmp_path / "root", address), pytest.raises(Busy, match=said), claimed(*other):
        pass
    with claimed(*other):
        pass


def test_sockets_of_the_dead_are_removed(tmp_path: Path, address: Path) -> None:
    address.parent.mkdir()
    for path in (address, control_of(address)):
        with closing(socket.socket(socket.AF_UNIX)) as dead:
            dead.bind(str(path))
    with claimed(tmp_path / "root", address):
        assert names(address.parent) == {"naiad.sock.lock"}


def test_a_socket_that_answers_is_left_alone_even_when_its_queue_is_full(
    tmp_path: Path, address: Path, listener: Path
) -> None:
    for _ in range(5):
        with pytest.raises(Busy, match="somebody listens"), claimed(tmp_path / "root", address):
            pass
    assert listener.is_socket()


async def test_the_service_of_pulls_takes_no_socket_that_answers(listener: Path) -> None:
    async def pull(request: PullRequest, say: Say) -> str:
        raise AssertionError

    with trio.fail_after(5), pytest.raises(Busy, match="somebody listens"):
        await serve_pulls(listener, pull)
    assert await trio.Path(listener).is_socket()


def test_a_file_that_is_no_socket_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(FusefsError, match="no socket"), claimed(tmp_path / "root", file):
        pass
    assert file.read_text() == "kept"


def test_an_address_too_long_is_refused_by_name(tmp_path: Path) -> None:
    address = tmp_path / ("x" * 120)
    with pytest.raises(FusefsError, match="xxx: cannot"), claimed(tmp_path / "root", address):
        pass
