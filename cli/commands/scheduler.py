"""``naiad scheduler``: who takes what from whom in a swarm."""

from __future__ import annotations

import click

from cli.config import config_option
from cli.options import ADDRESS, metrics_option, safety_options
from cli.papers import require_roles
from cli.services import run_service
from cli.setup import Safety
from cli.swarm import scheduling
from p2p.scheduling.evaluator import Limits
from p2p.security import Role


@click.command()
@click.option(
    "--listen",
    type=ADDRESS,
    metavar="HOST:PORT",
    default="127.0.0.1:7000",
    show_default=True,
    help="Where hosts connect to.",
)
@click.option(
    "--parents",
    type=click.IntRange(1, 20),
    default=4,
    show_default=True,
    help="Parents that a host is given for a task.",
)
@click.option(
    "--sample",
    type=click.IntRange(10, 1000),
    default=40,
    show_default=True,
    help="Hosts that are looked at to choose them.",
)
@click.option(
    "--peer-load",
    type=click.IntRange(1, 2000),
    default=50,
    show_default=True,
    help="Children that a peer may have, in all tasks together.",
)
@click.option(
    "--seed-load",
    type=click.IntRange(1, 50_000),
    default=300,
    show_default=True,
    help="Children that a seed may have.",
)
@metrics_option
@safety_options
@config_option
def command(listen: str, metrics: str, safety: Safety, **limits: int) -> None:
    """Say which hosts of a swarm take what from whom.

    Runs in the foreground and ends on SIGTERM. It keeps nothing on the disk: after a restart the
    hosts tell it everything again.

    \b
    Examples:
      naiad scheduler
      naiad scheduler --listen 0.0.0.0:7000 --certificate s.pem --key s.key --ca ca.pem
      naiad scheduler --config scheduler.toml
    """
    require_roles(safety, Role.SCHEDULER)
    names = ("parents", "sample", "peer_load", "seed_load")
    allowed = Limits(*(limits[name] for name in names))
    run_service(lambda: scheduling(listen, allowed, safety, metrics))
