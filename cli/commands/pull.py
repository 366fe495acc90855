"""``naiad pull``: an image into containerd, lazily, where its own client passes no labels.

The snapshotter does it, so nothing heavy is imported here.
"""

from __future__ import annotations

import time
from pathlib import Path

import click

from fusefs.pulls import PullRequest, pull

_SILENCE = 600.0
"""Seconds: a large ordinary layer says nothing while it is fetched and unpacked."""


@click.command()
@click.argument("reference")
@click.option(
    "--namespace", "-n", default="default", envvar="CONTAINERD_NAMESPACE", help="containerd's."
)
@click.option("--platform", default="", help="OS/ARCHITECTURE[/VARIANT].  [default: this machine]")
@click.option(
    "--user", "-u", default="", metavar="USER[:PASSWORD]", help="Who to be to the registry."
)
@click.option(
    "--snapshotter",
    default="naiad",
    show_default=True,
    help="What containerd's configuration calls naiad.",
)
@click.option(
    "--address",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("/run/naiad/snapshotter.sock"),
    show_default=True,
    help="The snapshotter's socket.",
)
def command(
    reference: str, namespace: str, platform: str, user: str, snapshotter: str, address: Path
) -> None:
    """Pull an image into containerd; what can be loaded lazily is not fetched.

    \b
    Examples:
      naiad pull registry.example/app:2-lazy
      naiad pull -n k8s.io registry.example/app:2-lazy
      ctr run --rm --snapshotter naiad registry.example/app:2-lazy app
    """
    name, colon, secret = user.partition(":")
    if name and not colon:
        secret = click.prompt("Password", hide_input=True, err=True)
    request = PullRequest(reference, namespace, snapshotter, platform, name, secret)
    started = time.monotonic()
    for reply in pull(address.absolute(), request, _SILENCE):
        if reply.said:
            click.echo(reply.said, err=True)
        if reply.digest:
            seconds = time.monotonic() - started
            click.echo(f"{reply.digest}  {seconds:.2f} s")
