"""A FUSE connection's settings, by a number that the kernel gives again."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fusefs.mounting.connection import Connection
from fusefs.mounting.kernel import mount, unmount
from fusefs.mounting.mountinfo import topmost
from fusefs.mounting.options import Options

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may abort a connection"),
]


@contextmanager
def _mounted(place: Path) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield the handle of a mount that nobody serves, and its device's number."""
    place.mkdir()
    handle = mount(place, "nothing", Options.parse(()))
    try:
        found = topmost(place)
        assert found is not None
        yield handle, found.device
    finally:
        unmount(place, lazy=True)
        os.close(handle)


def _has_ended(handle: int) -> bool:
    poll = select.poll()
    poll.register(handle, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def test_whoever_gets_the_number_of_one_that_has_gone_is_not_ended_for_it(tmp_path: Path) -> None:
    with _mounted(tmp_path / "first") as (_, number):
        gone = Connection(number)
    with ExitStack() as stack:
        others = [stack.enter_context(_mounted(tmp_path / f"next{i}")) for i in range(8)]
        gone.abort()
        gone.close()
        assert not any(_has_ended(handle) for handle, _ in others)
        handle, same = next((other for other in others if other[1] == number), others[0])
        connection = Connection(same)
        assert connection.abort()
        assert _has_ended(handle)
        connection.close()
        assert not connection.abort(), "closed"
