"""``naiad status``: how mounts are doing."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from pathlib import Path

import click

from cli.options import ADDRESS, FOLDER, json_option, safety_options, state_option
from cli.output import ago, human, print_facts, print_json, print_table
from cli.setup import Safety
from fusefs.errors import Declined, NoAnswer
from fusefs.mounting.mount import mounts, status

Facts = Mapping[str, object]

_STATES = ("alive", "supervised")
"""What the line ``state`` says in words."""


@click.command()
@click.argument("mountpoint", type=FOLDER, required=False)
@click.option("--scheduler", type=ADDRESS, metavar="HOST:PORT", help="Of a swarm, instead.")
@safety_options
@state_option
@json_option
def command(
    mountpoint: Path | None,
    scheduler: str | None,
    safety: Safety,
    state: Path | None,
    as_json: bool,
) -> None:
    """Tell how the mounts of this node are doing.

    \b
    Examples:
      naiad status
      naiad status /mnt
      naiad status --scheduler 10.0.0.1:7000 --insecure
      naiad status --json | jq '.[].ready_bytes'
    """
    if scheduler is not None:
        importlib.import_module("cli.swarmstate").show(scheduler, safety, as_json=as_json)
        return
    if mountpoint is not None:
        found: list[Facts] = [status(mountpoint, state)]
    else:
        found = [_of(known.mountpoint, state) for known in mounts(state)]
    if as_json:
        print_json(found)
    elif mountpoint is not None:
        _tell(found[0])
    elif found:
        head = ("mountpoint", "state", "image", "size", "ready", "origin")
        print_table(head, [_row(facts) for facts in found])


def _of(mountpoint: Path, state: Path | None) -> Facts:
    try:
        return status(mountpoint, state)
    except (NoAnswer, Declined) as exc:
        return {"mountpoint": str(mountpoint), "alive": True, "last_error": str(exc)}


def _tell(facts: Facts) -> None:
    plain = [
        (name, value)
        for name, value in facts.items()
        if not isinstance(value, Mapping) and name not in _STATES
    ]
    told = [(name.replace("_", " "), _shown(name, value)) for name, value in plain if value]
    print_facts([*told, ("state", _state(facts))])
    rows = [
        (name, tally["chunks"], human(tally["bytes"]), human(tally["stored_bytes"]))
        for name, tally in _sources(facts).items()
    ]
    if rows:
        print_table(("source", "chunks", "bytes", "as stored"), rows)
    images = facts.get("images")  # of the snapshotter's session
    if isinstance(images, Mapping) and images:
        head = ("image", "driver", "size", "ready")
        keys = ("image", "driver", "size", "ready_bytes")
        print_table(head, [[_shown(key, one[key]) for key in keys] for one in images.values()])


def _shown(name: str, value: object) -> object:
    if name == "last_error_at" and isinstance(value, float):
        return ago(time.time() - value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    counts_bytes = name.endswith(("_bytes", "size"))
    return human(value) if counts_bytes and isinstance(value, int) else value


def _state(facts: Facts) -> str:
    if not facts.get("alive"):
        return "dead"
    if facts.get("supervised") is False:
        return "unsupervised, since its supervisor died: it ends with the daemon it has"
    return "mounted"


def _sources(facts: Facts) -> Mapping[str, Mapping[str, int]]:
    sources = facts.get("sources")
    return sources if isinstance(sources, Mapping) else {}


def _row(facts: Facts) -> tuple[object, ...]:
    state, _, _ = _state(facts).partition(",")
    origin = _sources(facts).get("origin", {})
    sizes = (facts.get("size"), facts.get("ready_bytes"), origin.get("stored_bytes"))
    shown = (human(size) if isinstance(size, int) else "?" for size in sizes)
    return (facts.get("mountpoint"), state, facts.get("image", "?"), *shown)
