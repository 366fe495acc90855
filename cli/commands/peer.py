"""``naiad peer``: this node's cache in the swarm, without a mount."""

from __future__ import annotations

import click

from cli.config import config_option
from cli.options import cache_limit_option, membership_options, setup_options
from cli.services import run_service
from cli.setup import Membership, Setup
from cli.swarm import peering


@click.command()
@membership_options
@cache_limit_option
@setup_options
@config_option
def command(setup: Setup, membership: Membership, cache_limit: int | None) -> None:
    """Serve this node's cache to the swarm, without a mount.

    Runs in the foreground and ends on SIGTERM. A mount serves what it has by itself; this serves
    what lies in the cache, also when no mount uses it.

    \b
    Examples:
      naiad peer --scheduler 10.0.0.1:7000 --insecure
      naiad peer --config peer.toml
    """
    if not membership.schedulers and not membership.listen:
        raise click.UsageError("one of --scheduler and --listen says who is served")
    run_service(lambda: peering(setup, membership, cache_limit))
