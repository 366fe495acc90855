"""``naiad umount``: the end of a mount."""

from __future__ import annotations

from pathlib import Path

import click

from cli.options import FOLDER, state_option
from fusefs.mounting.mount import unmount


@click.command()
@click.argument("mountpoint", type=FOLDER)
@click.option("--lazy", is_flag=True, help="Also while programs use it; they are cut off.")
@state_option
def command(mountpoint: Path, lazy: bool, state: Path | None) -> None:
    """Unmount an image.

    A mount whose processes have died is cleaned up as well.

    \b
    Examples:
      naiad umount /mnt
    """
    unmount(mountpoint, lazy=lazy, state=state)
