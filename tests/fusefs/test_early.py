from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from fusefs.mounting.early import Early, given
from fusefs.mounting.vitals import Vitals


def _report(vitals: Vitals, channel: socket.socket) -> None:
    """Be a daemon that tells what it was given, and is seen to live."""
    found = given(channel)
    if found is not None:
        vitals.live(7.0)
        os.write(found.handles[0], b"read")
        channel.send(f"said {found.driver} {found.log} {found.work} {Path.cwd()}".encode())


def _die(vitals: Vitals, channel: socket.socket) -> None:
    raise SystemExit(3)


def _forked(serve: object) -> tuple[Early, int]:
    heard, told = os.pipe()
    os.close(heard)
    return Early.forked(serve, told), told  # type: ignore[arg-type]  # one of the above


def test_a_daemon_that_is_forked_early_gets_handles_and_words() -> None:
    early, told = _forked(_report)
    early.log, early.work = "/log", "an image"
    heard, written = os.pipe()
    vitals = early.vitals
    assert vitals is not None
    child = early.hand([written], "erofs")
    assert child is not None
    os.close(written)
    with os.fdopen(heard, "rb") as pipe:
        assert pipe.read() == b"read"
    assert child.dies(20)
    assert ("said", "erofs /log an image /") in child.said()
    assert vitals.beat == 7.0
    assert early.vitals is None, "it is nobody's second time"
    assert early.hand([0], "erofs") is None
    os.waitpid(child.pid, 0)
    child.close()
    os.close(told)


def test_a_daemon_that_died_is_not_handed_anything() -> None:
    early, told = _forked(_die)
    child = early._child
    assert child is not None
    assert child.dies(20)
    assert early.hand([told], "fuse") is None
    os.close(told)


def test_a_daemon_that_nobody_wants_ends() -> None:
    early, told = _forked(_report)
    child = early._child
    assert child is not None
    early.discard()
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)
    early.discard()
    os.close(told)
