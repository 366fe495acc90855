"""``naiad cache``: the blob cache of this node."""

from __future__ import annotations

import time
from pathlib import Path

import click

from chunkstore.blobcache import BlobCache
from chunkstore.eviction import remove, unused, usage
from cli.bootstraps import Bootstraps
from cli.cacheview import blobs, verify
from cli.options import SIZE, cache_option, json_option
from cli.output import human, print_json, print_table


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
    """List the blobs in the cache."""
    found = list(blobs(BlobCache(cache)))
    if as_json:
        print_json(found)
        return
    now = time.time()
    rows = [
        (blob.id, human(blob.size), human(blob.ready_size), human(blob.allocated), blob.age(now))
        for blob in found
    ]
    if rows:
        print_table(("blob", "size", "ready", "on disk", "last used"), rows)


@command.command()
@click.option("--keep", type=SIZE, default="0", help="Stop when so much is left.  [default: 0]")
@cache_option
@json_option
def gc(keep: int, cache: Path, as_json: bool) -> None:
    """Remove what no mount uses, the longest unused first."""
    opened = BlobCache(cache)
    freed, left = 0, usage(cache)
    for place in unused(opened):
        if left - freed <= keep:
            break
        freed += remove(opened, place)
    if not keep:
        freed += Bootstraps(cache).collect()
    print_json({"freed": freed}) if as_json else click.echo(f"freed {human(freed)}")


@command.command(name="verify")
@cache_option
@json_option
@click.pass_context
def verify_(ctx: click.Context, cache: Path, as_json: bool) -> None:
    """Verify every chunk in the cache; bad ones are dropped, to be fetched again."""
    found = verify(BlobCache(cache))
    if as_json:
        print_json(found)
    else:
        click.echo(f"{found.verified} chunks are right, {found.dropped} were bad and are dropped")
    ctx.exit(1 if found.dropped else 0)
