"""What is printed of names that anybody may have chosen."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cli.output import print_facts, print_json, print_table, printable
from fixtures.command import Naiad

NAMES = [
    ("plain ü ñ 漢", "plain ü ñ 漢"),
    ("two\nlines\tand\rmore", r"two\x0alines\x09and\x0dmore"),
    ("\x1b[31mred\x9b0m\x7f", r"\x1b[31mred\x9b0m\x7f"),
    (os.fsdecode(b"not \xff UTF-8"), r"not \xff UTF-8"),
    ("\u2028\ud800", r"\u2028\ud800"),
]


@pytest.mark.parametrize(("name", "shown"), NAMES)
def test_a_name_is_one_line_that_a_terminal_obeys_nothing_of(
    name: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printable(name) == shown
    print_facts([("path", name)])
    print_table(["path"], [[name]])
    assert capsys.readouterr().out == f"path  {shown}\npath\n{shown}\n"


@pytest.mark.parametrize("name", [name for name, _ in NAMES])
def test_json_holds_every_name_and_nothing_that_cannot_be_printed(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_json({"path": name})
    out = capsys.readouterr().out
    assert json.loads(out) == {"path": name}
    assert "\x7f" not in out
    out.encode()  # a terminal's encoding takes it


def test_a_path_that_is_not_utf8_is_not_mounted_but_told_of(naiad: Naiad, tmp_path: Path) -> None:
    name = os.fsdecode(b"image \xff")
    done = naiad.run("mount", tmp_path / name, tmp_path, ok=False)
    assert done.returncode == 2
    assert r"image \xff: what is mounted, and where, must be UTF-8" in done.stderr
