"""``naiad simulate``: a swarm in virtual time."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path

import click
import msgspec

from chunkstore.errors import Malformed
from cli.options import json_option
from p2p.simulator import Scenario, simulate


@click.command()
@click.argument("scenario", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seed", type=int, help="Of all chance; instead of the scenario's own.")
@json_option
@click.pass_context
def command(ctx: click.Context, scenario: Path, seed: int | None, as_json: bool) -> None:
    """Run a swarm in virtual time and tell how near it came to the bound.

    The scheduler and the choosing are those of the services; hosts, links and time are virtual.
    The same scenario and seed give the same output to the byte. The exit code is 1 if a host that
    lives did not get all of it.

    \b
    Examples:
      naiad simulate scenario.toml
      naiad simulate --seed 7 --json scenario.toml

    \b
    A scenario:
      size = "1GiB"
      piece = "1MiB"
      [[group]]
      hosts = 1000
      up = "1Gbit"
      down = "1Gbit"
      over = "5s"              # they arrive over that time
      [seeds]
      hosts = 1
      [[fault]]
      kind = "death"           # stall slow corrupt lie partition scheduler seed origin
      at = "3s"
      hosts = 20
    """
    try:
        told = Scenario.decode(tomllib.loads(scenario.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"{scenario}: {error}") from error
    if seed is not None:
        told = msgspec.structs.replace(told, seed=seed)
    began = time.process_time()
    report = simulate(told)
    took = time.process_time() - began
    click.echo(report.json() if as_json else report.text())
    click.echo(f"{report.events} events in {took:.1f} s of CPU", err=True)
    ctx.exit(0 if report.finished >= report.living else 1)
