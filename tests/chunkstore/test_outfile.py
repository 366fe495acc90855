from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from chunkstore.outfile import copy, unfinished

DATA = os.urandom(20 << 20)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    with path.open("r+b", buffering=0) as file:
        yield file.fileno()


def ignore(_done: int) -> None:
    pass


def test_a_file_appears_whole_and_is_ones_own(source: int, tmp_path: Path) -> None:
    with unfinished(tmp_path / "out") as fd:
        assert copy(source, fd, len(DATA) - 5, ignore) in ("clone", "copy")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out").read_bytes() == DATA[:-5]
    assert (tmp_path / "out").stat().st_nlink == 1
    os.pwrite(source, b"changed", 0)
    assert (tmp_path / "out").read_bytes() == DATA[:-5]


def test_a_failure_leaves_what_was_there(source: int, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    with pytest.raises(OSError, match="shorter"), unfinished(tmp_path / "out") as fd:
        copy(source, fd, len(DATA) + 1, ignore)
    assert (tmp_path / "out").read_text() == "old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out", "source"]


def test_a_full_disk_is_told_with_the_file_that_it_has_no_room_for(tmp_path: Path) -> None:
    path = tmp_path / "out"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"), unfinished(path):
        raise full


def test_a_copy_can_be_stopped(source: int, tmp_path: Path) -> None:
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), unfinished(tmp_path / "out") as fd:
        copy(source, fd, len(DATA), stop)
    assert not (tmp_path / "out").exists()


def test_a_file_system_without_nameless_files_will_do(
    source: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def no_tmpfile(path: os.PathLike[str], flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no")
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", no_tmpfile)
    with unfinished(tmp_path / "out") as fd:
        copy(source, fd, 10, ignore)
    assert (tmp_path / "out").read_bytes() == DATA[:10]
