"""The state folder of a mount whose processes do nothing."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from fusefs.control import Command, ask
from fusefs.errors import NoAnswer
from fusefs.mounting.state import Folder

_QUEUE = 40
"""Callers, more than wait for an answer at a time."""


def _crowd(folder: Folder, waiting: ExitStack) -> None:
    for _ in range(_QUEUE):
        waiting.enter_context(folder.connect(0.0))


def test_a_mount_that_takes_no_more_callers_lives_and_holds_nobody_up(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with ExitStack() as waiting:
        waiting.enter_context(folder.listen())
        with pytest.raises(TimeoutError):
            _crowd(folder, waiting)
        assert folder.alive
        with pytest.raises(NoAnswer, match="too many wait"):
            ask(folder, Command.STATUS, 0.01)
    assert not folder.alive
