"""``naiad pull``: an image into containerd, lazily, where its own client passes no labels.

The snapshotter does it; `cli.quick` asks it, and reads what is mostly typed without this module.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from cli.quick import ADDRESS, ask


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
    default=Path(ADDRESS),
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
    asked = {
        "reference": reference,
        "namespace": namespace,
        "snapshotter": snapshotter,
        "platform": platform,
        "user": name,
        "secret": secret,
    }
    ask(os.path.abspath(address), asked)  # noqa: PTH100  # as `cli.quick` has it, without paths
