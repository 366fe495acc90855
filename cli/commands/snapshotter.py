"""``naiad snapshotter``: containerd's snapshotter."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict, Unpack

import click
import trio

from cli.config import config_option
from cli.options import (
    FOLDER,
    cache_limit_option,
    cache_option,
    membership_options,
    prefetch_option,
    read_deadline_option,
    state_option,
)
from cli.setup import GalleryRequest, Membership, Prefetch, Registries, Setup, SnapshotterRequest
from cli.snapshots import run

_FILE = click.Path(dir_okay=False, path_type=Path)


class _Told(TypedDict):
    root: Path
    address: Path
    no_images: bool
    driver: str
    plain: tuple[str, ...]
    credentials: tuple[Path, ...]
    containerd: Path
    cache: Path
    cache_limit: int | None
    prefetch: Prefetch
    read_deadline: float
    membership: Membership
    state: Path | None


@click.command()
@click.option(
    "--root", type=FOLDER, default=Path("/var/lib/naiad"), show_default=True, help="Its folder."
)
@click.option(
    "--address",
    type=_FILE,
    default=Path("/run/naiad/snapshotter.sock"),
    show_default=True,
    help="The socket that containerd asks at.",
)
@click.option("--no-images", is_flag=True, help="Load nothing lazily.")
@click.option(
    "--driver",
    type=click.Choice(["auto", "fuse", "erofs"]),
    default="auto",
    show_default=True,
    help="Show images by FUSE, or by the kernel's own EROFS (Linux 6.12).",
)
@click.option("--plain-http", "plain", multiple=True, metavar="HOST", help="Registry without TLS.")
@click.option(
    "--credentials",
    type=_FILE,
    multiple=True,
    help="A Docker config, or a Kubernetes secret of one.",
)
@click.option(
    "--containerd",
    type=_FILE,
    default=Path("/run/containerd/containerd.sock"),
    show_default=True,
    help="containerd's own socket, for naiad pull.",
)
@cache_option
@cache_limit_option
@prefetch_option
@read_deadline_option
@membership_options
@state_option
@config_option
@click.pass_context
def command(ctx: click.Context, **told: Unpack[_Told]) -> None:
    """Serve containerd's snapshots, and mount images instead of unpacking them.

    Ends on SIGTERM; images that snapshots need stay mounted, and containers go on.

    \b
    Examples:
      naiad snapshotter --config /etc/naiad/snapshotter.toml
      naiad snapshotter --cache-limit 50GiB --plain-http registry.lan:5000
      naiad snapshotter --scheduler 10.0.0.1:7000 --insecure
    """
    gallery = GalleryRequest(
        Setup(told["cache"].absolute(), patience=told["read_deadline"]),
        Registries(told["plain"], tuple(path.absolute() for path in told["credentials"])),
        folder=Path(),
        cache_limit=told["cache_limit"],
        prefetch=told["prefetch"],
        membership=told["membership"],
        driver=told["driver"],
    )
    request = SnapshotterRequest(
        root=told["root"].absolute(),
        address=told["address"].absolute(),
        gallery=None if told["no_images"] else gallery,
        state=told["state"].absolute() if told["state"] else None,
        containerd=told["containerd"].absolute(),
        log_level=str(ctx.find_root().params["log_level"]),
    )
    trio.run(run, request)
