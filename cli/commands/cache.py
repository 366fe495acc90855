"""``naiad cache``: the blob cache of this node."""

from __future__ import annotations

import time
from pathlib import Path

import click

from chunkstore.blobcache import BlobCache
from chunkstore.scrub import BlobFacts, checked, collect, inventory
from chunkstore.whole import Vouched
from cli.bootstraps import Bootstraps
from cli.options import SIZE, cache_option, json_option
from cli.output import ago, human, print_json, print_table
from cli.progress import bar


@click.group()
def command() -> None:
    """List, trim and verify this node's blob cache.

    \b
    Examples:
      naiad cache ls
      naiad cache gc --keep 10GiB
      naiad cache verify
    """


@command.command()
@cache_option
@json_option
def ls(cache: Path, as_json: bool) -> None:
    """List the blobs in the cache.

    \b
    Examples:
      naiad cache ls
      naiad cache ls --json --cache /srv/naiad
    """
    found = inventory(BlobCache(cache))
    now = time.time()
    if as_json:
        print_json(found)
    elif found:
        head = ("blob", "size", "ready", "on disk", "last used")
        print_table(head, [_row(blob, now) for blob in found])


def _row(blob: BlobFacts, now: float) -> tuple[object, ...]:
    used = "in use" if blob.in_use else ago(now - blob.used)
    return blob.name, human(blob.size), human(blob.ready_size), human(blob.allocated), used


@command.command()
@click.option("--keep", type=SIZE, default="0", help="Stop when so much is left.  [default: 0]")
@cache_option
@json_option
def gc(keep: int, cache: Path, as_json: bool) -> None:
    """Remove what no mount uses, the longest unused first.

    \b
    Examples:
      naiad cache gc
      naiad cache gc --keep 10GiB
    """
    freed = collect(BlobCache(cache), keep)
    if not keep:
        freed += Bootstraps(cache).collect()
        Vouched(cache).collect(cache / "blobs")
    print_json({"freed": freed}) if as_json else click.echo(f"freed {human(freed)}")


@command.command(short_help="Verify every chunk; drop the bad ones.")
@cache_option
@json_option
@click.pass_context
def verify(ctx: click.Context, cache: Path, as_json: bool) -> None:
    """Verify every chunk in the cache; bad ones are dropped, to be fetched again.

    The exit code is 1 if there were any.

    \b
    Examples:
      naiad cache verify
      naiad cache verify --json
    """
    opened = BlobCache(cache)
    total = sum(blob.ready_size for blob in inventory(opened))
    counts, done = {True: 0, False: 0}, 0
    with bar("verifying") as advance:
        for chunk in checked(opened):
            counts[chunk.intact] += 1
            done += chunk.size
            advance(done, total)
    if as_json:
        print_json({"verified": counts[True], "dropped": counts[False]})
    else:
        click.echo(f"{counts[True]} chunks are right, {counts[False]} were bad and are dropped")
    ctx.exit(1 if counts[False] else 0)
