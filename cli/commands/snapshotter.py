"""``naiad snapshotter``: containerd's snapshotter."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from cli.config import config_option
from cli.options import FOLDER
from cli.snapshots import run


@click.command()
@click.option(
    "--root", type=FOLDER, default=Path("/var/lib/naiad"), show_default=True, help="Its folder."
)
@click.option(
    "--address",
    type=click.Path(path_type=Path),
    default=Path("/run/naiad/snapshotter.sock"),
    show_default=True,
    help="The socket that containerd asks at.",
)
@click.option("--no-images", is_flag=True, help="Load nothing lazily.")
@config_option
def command(root: Path, address: Path, no_images: bool) -> None:
    """Serve containerd's snapshots, and mount images instead of unpacking them.

    Ends on SIGTERM.

    \b
    Examples:
      naiad snapshotter --config /etc/naiad/snapshotter.toml
    """
    trio.run(run, root.absolute(), address.absolute())
