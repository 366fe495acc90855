"""What every test is held to, and the command as a person runs it."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from trio.testing import MockClock

from fixtures.command import Naiad
from fixtures.command import naiad as running_naiad
from fixtures.leftovers import HOMES, MARK, Surroundings
from fixtures.patience import patient

_PATIENCE = 10.0
"""Seconds in which what the last test has ended is gone."""

_PACKAGES = ("rafs", "chunkstore", "p2p", "fusefs", "cli")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the kernel's FUSE where there is none; in CI it fails instead."""
    if Path("/dev/fuse").exists() or os.environ.get("CI"):
        return
    skip = pytest.mark.skip(reason="there is no /dev/fuse")
    for item in items:
        if "kernel" in item.keywords:
            item.add_marker(skip)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Let go of the last test's fixtures: pytest does so only after `nothing_left` has looked.

    A closed cache file stays mapped, with a descriptor of its own, while something refers to it.
    """
    if nextitem is None and isinstance(item, pytest.Function):
        item.funcargs.clear()


@pytest.fixture(scope="session", autouse=True)
def nothing_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail the run if mounts, processes, descriptors, loop devices or namespaces stay of it."""
    # Who ends a run by a signal wants it cleaned up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ[MARK] = str(os.getpid())
    homes = HOMES if os.environ.get("CI") else ()
    around = Surroundings.of(tmp_path_factory.getbasetemp(), os.environ[MARK], homes)
    yield
    left = around.left(_PATIENCE)
    assert not left, "\n".join(["the tests have left behind:", *left])


@pytest.fixture
def patient_clock() -> MockClock:
    """Give a clock that jumps only where no thread is waited for either."""
    return patient()


@pytest.fixture(autouse=True)
def no_unannounced_warning(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Fail a test whose log warns of what no ``@pytest.mark.logs(PATTERN)`` announced."""
    yield
    announced = [mark.args[0] for mark in request.node.iter_markers("logs")]
    unexpected = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.levelno >= logging.WARNING
        and record.name.partition(".")[0] in _PACKAGES
        and not any(re.search(pattern, record.getMessage()) for pattern in announced)
    ]
    assert not unexpected, f"the log warned: {unexpected}"


@pytest.fixture
def naiad(tmp_path: Path) -> Iterator[Naiad]:
    """Run ``naiad`` as a person does, with a cache and state of the test's own."""
    with running_naiad(tmp_path) as command:
        yield command
