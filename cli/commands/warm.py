"""``naiad warm``: files on this node before they are read."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from cli.options import FOLDER, json_option, state_option
from cli.output import human, print_json
from cli.progress import bar
from fusefs.errors import Declined
from fusefs.mounting.mount import warm

_PAUSE = 0.2
"""Seconds between two looks at how far it is."""

Facts = Mapping[str, object]


@click.command()
@click.argument("mountpoint", type=FOLDER)
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@click.option("--wait", is_flag=True, help="Return when they are here, showing how far they are.")
@state_option
@json_option
def command(
    mountpoint: Path, paths: Sequence[str], wait: bool, state: Path | None, as_json: bool
) -> None:
    """Fetch a mounted image's files before they are read.

    All of them, or PATHs and what is below them; a PATH counts from MOUNTPOINT on, or is absolute
    and below it. Readers come first: what they wait for is fetched before what is warmed.

    \b
    Examples:
      naiad warm /mnt                                everything, in the background
      naiad warm /mnt --wait model.safetensors       one file, with a progress bar
    """
    inside = [_inside(mountpoint, path) for path in paths]
    began = time.monotonic()
    facts = warm(mountpoint, inside, state)
    if wait:
        facts = _followed(facts, mountpoint, inside, state)
    seconds = time.monotonic() - began
    if as_json:
        print_json({**facts, "seconds": round(seconds, 3)} if wait else facts)
    else:
        _tell(facts, seconds if wait else None)
    if failed := _count(facts, "failed_bytes"):
        raise Declined(f"{human(failed)} could not be had: {facts['last_error']}")


def _inside(mountpoint: Path, path: str) -> str:
    if not path.startswith("/"):
        return path
    inside = os.path.relpath(path, mountpoint.absolute())
    if inside == ".." or inside.startswith("../"):
        raise click.BadParameter(f"{path} is not below {mountpoint}")
    return inside


def _followed(facts: Facts, mountpoint: Path, inside: Sequence[str], state: Path | None) -> Facts:
    with bar("warming") as advance:
        while (done := _done(facts)) < (total := _count(facts, "bytes")):
            advance(done, total)
            time.sleep(_PAUSE)
            facts = warm(mountpoint, inside, state)
    return facts


def _done(facts: Facts) -> int:
    return _count(facts, "here_bytes") + _count(facts, "failed_bytes")


def _count(facts: Facts, name: str) -> int:
    value = facts[name]
    assert isinstance(value, int)
    return value


def _tell(facts: Facts, seconds: float | None) -> None:
    files, total = facts["files"], _count(facts, "bytes")
    if seconds is None:
        here = human(_count(facts, "here_bytes"))
        click.echo(f"{human(total)} in {files} files, {here} here so far")
        return
    rate = total / max(seconds, 1e-6) / 1e6
    click.echo(f"{human(total)} in {files} files are here, {seconds:.1f} s, {rate:.0f} MB/s")
