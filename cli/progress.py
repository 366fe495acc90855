"""Progress bars on stderr, for a person at a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

Advance = Callable[[int, int | None], None]
"""Told how many bytes are done, and of how many if anybody knows."""


@contextmanager
def bar(title: str) -> Iterator[Advance]:
    """Yield what moves a bar; nothing is shown where stderr is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    shown = sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as on:
        task = on.add_task(title, total=None)
        yield lambda done, total: on.update(task, completed=done, total=total)


Shown = Callable[[int, int | None, str], None]
"""Told how many bytes are done, of how many if anybody knows, and where they came from."""


@contextmanager
def transfer_bar(title: str) -> Iterator[Shown]:
    """Yield what moves a bar that also says where the bytes come from."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[source]}"),
    )
    shown = sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as on:
        task = on.add_task(title, total=None, source="")
        yield lambda done, total, source: on.update(
            task, completed=done, total=total, source=source
        )
