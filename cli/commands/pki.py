"""``naiad pki``: certificates for mutual TLS between the hosts of a swarm."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from cli.options import FOLDER, json_option
from cli.output import print_facts, print_json
from p2p.pki import LEAF_DAYS, Wish, init, issue
from p2p.security import Role


@click.group()
def command() -> None:
    """Make an authority and certificates for the hosts of a swarm.

    \b
    Examples:
      naiad pki init /etc/naiad/pki
      naiad pki issue /etc/naiad/pki --role scheduler --name sched.example
      naiad pki issue /etc/naiad/pki --role peer --name node-7 --days 7 --out /srv/certs
    """


@command.command("init", short_help="Make the authority: ca.pem and ca.key.")
@click.argument("folder", metavar="DIR", type=FOLDER)
@json_option
def init_command(folder: Path, as_json: bool) -> None:
    """Make the authority in DIR: ca.pem, which every host gets, and ca.key, which none does.

    \b
    Examples:
      naiad pki init /etc/naiad/pki
    """
    made = init(folder, datetime.now(UTC))
    print_json({"ca": made}) if as_json else click.echo(made)


@command.command("issue", short_help="Issue or renew a host's certificate.")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option(
    "--role",
    "roles",
    type=click.Choice([role.value for role in Role]),
    multiple=True,
    required=True,
    help="What the host may be; repeated for one that is several.",
)
@click.option("--name", required=True, help="The host's name or address.")
@click.option(
    "--days",
    type=click.IntRange(1, 825),
    default=LEAF_DAYS,
    show_default=True,
    help="How long it is valid.",
)
@click.option("--out", type=FOLDER, help="Where NAME.pem and NAME.key go.  [default: DIR]")
@json_option
def issue_command(
    folder: Path, roles: tuple[str, ...], name: str, days: int, out: Path | None, as_json: bool
) -> None:
    """Issue a certificate, or renew one in place: services take it up by themselves.

    \b
    Examples:
      naiad pki issue /etc/naiad/pki --role scheduler --name sched.example
      naiad pki issue /etc/naiad/pki --role seed --role peer --name 10.0.0.2 --days 7
    """
    wish = Wish(name, {Role(role) for role in roles}, timedelta(days=days))
    made = issue(folder, wish, out or folder, datetime.now(UTC))
    if as_json:
        print_json(made)
    else:
        print_facts((f"--{each}", getattr(made, each)) for each in ("certificate", "key", "ca"))
