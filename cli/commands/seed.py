"""``naiad seed``: first to the origin, for all others."""

from __future__ import annotations

import click

from chunkstore.http import UrlPattern
from cli.config import config_option
from cli.options import Parsed, cache_limit_option, seed_options, setup_options
from cli.papers import require_roles
from cli.services import run_service
from cli.setup import Membership, Setup
from cli.swarm import Reads, seeding
from p2p.security import Role


@click.command()
@seed_options
@click.option(
    "--with-credentials",
    is_flag=True,
    help="Ask registries as this user, for hosts that may read there themselves.",
)
@click.option(
    "--origin",
    "--origins",
    "origins",
    type=Parsed("PATTERN", UrlPattern.parse, "https://registry.example/*"),
    multiple=True,
    metavar="PATTERN",
    help="Read nothing else: https://HOST[:PORT]/*; may be given several times.",
)
@cache_limit_option
@setup_options
@config_option
def command(
    setup: Setup,
    membership: Membership,
    cache_limit: int | None,
    with_credentials: bool,
    origins: tuple[UrlPattern, ...],
) -> None:
    """Get from origins what a swarm wants, once, and serve it.

    Runs in the foreground and ends on SIGTERM. With --scheduler self it is the swarm's
    scheduler as well, at the address given by --listen.

    It reads what hosts of the swarm name, but not this machine's own servers, nor addresses of
    its link, where clouds answer their machines: --origin allows hosts there, and only what it
    names.

    \b
    Examples:
      naiad seed --scheduler 10.0.0.1:7000 --listen 10.0.0.2:7001 --cache-limit 500GiB --insecure
      naiad seed --scheduler self --listen 10.0.0.2:7000 --insecure
      naiad seed --config seed.toml
    """
    if not membership.schedulers:
        raise click.UsageError("--scheduler says whose swarm this seed is for; self: its own")
    if "self" in membership.schedulers and not _is_fixed(membership.listen):
        raise click.UsageError("--scheduler self needs the --listen that other hosts are told")
    own = (Role.SCHEDULER,) if "self" in membership.schedulers else ()
    require_roles(membership.safety, Role.SEED, *own)
    reads = Reads(origins, with_credentials)
    run_service(lambda: seeding(setup, membership, cache_limit, reads))


def _is_fixed(listen: str) -> bool:
    """Say whether others can be told *listen*: it names one host and one port."""
    host, _, port = listen.rpartition(":")
    return host not in ("", "0.0.0.0", "[::]") and port not in ("", "0")
