"""``naiad mount``: an image as a file system.

This process forks the supervisor, and that one the daemon, so nothing here imports trio, pyfuse3 or
an HTTP client: `cli.daemon`, which does, is loaded by name in the daemon's process.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

import click

from chunkstore import Digest
from cli.logs import to_file
from cli.names import absolute, shown
from cli.options import (
    FOLDER,
    WORD,
    cache_limit_option,
    digest_option,
    hub_options,
    membership_options,
    prefetch_option,
    read_deadline_option,
    setup_options,
    state_option,
)
from cli.output import printable
from cli.precheck import Precheck
from cli.setup import DaemonRequest, Membership, MountRequest, Prefetch, Setup, encoded
from fusefs.errors import MountFailed
from fusefs.mounting.early import Early
from fusefs.mounting.keeper import MountSpec
from fusefs.mounting.mount import run_mount
from fusefs.mounting.options import Options
from fusefs.mounting.supervisor import Handoff


class _Told(TypedDict):
    driver: str
    cache_limit: int | None
    prefetch: Prefetch
    read_deadline: float
    options: tuple[str, ...]
    foreground: bool
    trace: Path | None
    hf_cache: Path | None
    digest: Digest | None
    setup: Setup
    membership: Membership
    state: Path | None


_FILE = click.Path(dir_okay=False, path_type=Path)


def _checked(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
    try:
        Options.parse(words)
    except MountFailed as exc:
        raise click.BadParameter(str(exc), ctx, param) from exc
    return words


@click.command()
@click.argument("image", type=WORD)
@click.argument("mountpoint", type=FOLDER)
@click.option(
    "--driver",
    type=click.Choice(["auto", "fuse", "erofs"]),
    default="auto",
    show_default=True,
    help="Show it by FUSE, or by the kernel's own EROFS (root, Linux 6.12).",
)
@cache_limit_option
@prefetch_option
@read_deadline_option
@click.option(
    *("-o", "options"),
    multiple=True,
    callback=_checked,
    metavar="OPTIONS",
    help="suid, dev, noexec, …",
)
@click.option("--foreground", is_flag=True, help="Stay, and log to stderr.")
@click.option("--trace", type=_FILE, help="Write the paths of files there as they are first read.")
@click.option("--hf-cache", type=FOLDER, help="Show a hub's model there, as in HF_HUB_CACHE.")
@digest_option
@setup_options
@hub_options
@membership_options
@state_option
@click.pass_context
def command(ctx: click.Context, image: str, mountpoint: Path, **told: Unpack[_Told]) -> None:
    """Mount an image; its data arrives as it is read.

    \b
    Examples:
      naiad mount ./image /mnt
      naiad mount --cache-limit 50GiB http://images.example/app /mnt
      naiad mount --scheduler 10.0.0.1:7000 --insecure images.example/app:1 /mnt
      naiad mount --digest sha256:… --prefetch all ./image /mnt
      naiad mount --hf-cache ~/.cache/huggingface/hub hf:org/model /mnt
    """
    setup = told["setup"]
    for word in (image, str(mountpoint), str(told["state"])):
        if not _is_utf8(word):  # the state's documents are
            raise click.UsageError(f"{printable(word)}: what is mounted, and where, must be UTF-8")
    if (setup.allow or setup.ignore) and not image.startswith("hf:"):
        raise click.UsageError("--allow and --ignore choose among a hub's files: hf:ORG/NAME")
    driver, reason = _driver(image, told)
    level = str(ctx.find_root().params["log_level"])
    log_level = "debug" if level == "debug" else "info"
    spec = MountSpec(
        image=shown(image),
        mountpoint=mountpoint,
        options=told["options"],
        driver=driver,
        driver_reason=reason,
        foreground=told["foreground"],
        set_up_log=partial(to_file, level=log_level),
        state=told["state"],
    )
    request = MountRequest(
        image=absolute(image),
        setup=replace(setup, patience=told["read_deadline"]),
        pin=told["digest"],
        cache_limit=told["cache_limit"],
        prefetch=told["prefetch"],
        membership=told["membership"],
        trace=told["trace"] and told["trace"].absolute(),
        mountpoint=mountpoint.absolute(),
        hf_cache=told["hf_cache"] and told["hf_cache"].absolute(),
    )
    early = ctx.find_object(Early)
    if early is not None:
        early.work = encoded(DaemonRequest(request, log_level))
        if driver != "fuse":
            early.more = Precheck.apart(request.image, request.setup.cache)
    run_mount(spec, lambda handoff: _daemon(handoff, request), early)


def _is_utf8(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _driver(image: str, told: _Told) -> tuple[str, str]:
    """Return the driver and why it is that; of ``auto`` the daemon says more when it knows."""
    reason = ""
    if image.startswith("hf:"):
        reason = "only FUSE can drop what turns out to be wrong"
    elif told["trace"] is not None:
        reason = "--trace sees the reads of files by --driver fuse only"
    if reason and told["driver"] == "erofs":
        raise click.UsageError(f"--driver erofs: {reason}")
    return ("fuse", reason) if reason else (told["driver"], "asked for")


def _daemon(handoff: Handoff, request: MountRequest) -> None:
    first = handoff.driver != "fuse" and not handoff.vitals.legacy
    precheck = Precheck.begin(request.image, request.setup.cache) if first else None
    importlib.import_module("cli.daemon").run(handoff, request, precheck)
