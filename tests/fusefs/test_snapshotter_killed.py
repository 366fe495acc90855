"""The snapshotter, killed before every single write, by the database or in the file system."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

import pytest
import trio

from fixtures.snapshotting import TableImages, snapshotter
from fusefs.containers.snapshots import Change
from fusefs.containers.snapshotstore import connect
from fusefs.containers.snapshotter import TARGET, Snapshotter
from fusefs.errors import SnapshotError, SnapshotExists

_KILLED = 99
_WRITES = ("INSERT", "UPDATE", "DELETE", "COMMIT", "CREATE", "PRAGMA")
_EVENTS = ("os.mkdir", "os.rename", "os.chmod", "os.rmdir", "os.remove", "tempfile.mkdtemp")
_IMAGES = {"sha256:lazy": "image"}


async def work(service: Snapshotter) -> None:
    """Do each kind of change once."""
    await service.start()
    await service.prepare("making", "", {"a": "1"})
    await service.commit("making", "base", "", {"b": "2"})
    await service.view("view", "base", {})
    await service.update("view", Change({"c": "3"}))
    await service.prepare("container", "base", {})
    with pytest.raises(SnapshotExists):
        await service.prepare("ns/1/lazy", "", {TARGET: "sha256:lazy"})
    await service.remove("view")
    await service.remove("container")
    await service.remove("base")


class _Death:
    """Ends the process without a word before its write number *number*."""

    def __init__(self, number: int) -> None:
        self._left = number

    def write(self) -> None:
        self._left -= 1
        if self._left < 0:
            os._exit(_KILLED)

    def heard(self, event: str, _: tuple[object, ...]) -> None:
        if event in _EVENTS:
            self.write()

    def open_database(self, path: Path) -> sqlite3.Connection:
        database = connect(path)
        database.set_trace_callback(self._traced)
        return database

    def _traced(self, statement: str) -> None:
        if statement.lstrip().startswith(_WRITES):
            self.write()


def run_until(root: Path, number: int) -> bool:
    """Do the work in a process of its own that dies at a write; False: it came to its end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            death = _Death(number)
            sys.addaudithook(death.heard)
            with snapshotter(root, TableImages(_IMAGES), death.open_database) as service:
                trio.run(work, service)
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, _KILLED)
    return code == _KILLED


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def check(root: Path) -> None:
    """Look that what a restart finds is whole, and that all can be done from there."""
    with snapshotter(root, TableImages(_IMAGES)) as service:
        await service.start()
        found = {snapshot.key: snapshot for snapshot in await service.listed(())}
        folders = {str(one.id) for one in found.values() if one.is_ordinary}
        assert names(root / "snapshots") == folders
        for snapshot in found.values():
            assert not snapshot.parent or snapshot.parent in found
            if snapshot.is_ordinary:
                assert (root / "snapshots" / str(snapshot.id) / "fs").is_dir()
        for _ in range(3):  # children first, whichever they are
            for key in list(found):
                try:
                    await service.remove(key)
                    del found[key]
                except SnapshotError:
                    continue
        assert not found
        await work(service)


def test_a_restart_finds_everything_whole_wherever_it_was_killed(tmp_path: Path) -> None:
    number = 0
    while run_until(tmp_path / str(number), number):
        trio.run(check, tmp_path / str(number))
        number += 1
    assert number > 30
