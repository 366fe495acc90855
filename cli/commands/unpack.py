"""``naiad unpack``: an image's files, all of them, without mounting it."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from chunkstore import Digest
from cli.options import digest_option, setup_options
from cli.output import human
from cli.progress import Advance, bar
from cli.setup import Setup
from cli.stack import Image, opened, reader
from rafs.unpack import Unpacked, unpack
from rafs.verify import ReadStored


@click.command()
@click.argument("image")
@click.argument("dest", type=click.Path(path_type=Path))
@setup_options
@digest_option
def command(image: str, dest: Path, setup: Setup, digest: Digest | None) -> None:
    """Write an image's files to a directory, or to a tar.

    DEST ending in .tar is a tar, - a tar on standard output, anything else a new or empty
    directory. Every chunk is verified; what this user may not restore is told once.

    \b
    Examples:
      naiad unpack ./image /srv/app
      naiad unpack registry.example/app:2 app.tar
      naiad unpack ./image - | tar -tv
    """

    async def work() -> Unpacked:
        async with opened(image, setup, digest) as found:
            with bar("unpacking") as advance:
                return await trio.to_thread.run_sync(
                    _unpack, found, reader(found.origin), dest, advance
                )

    done = trio.run(work)
    for what, count in sorted(done.skipped.items()):
        click.echo(f"naiad: left out, not permitted here: {what} ({count}x)", err=True)
    click.echo(f"{done.files} names, {human(done.size)}", err=True)


def _unpack(image: Image, read: ReadStored, dest: Path, advance: Advance) -> Unpacked:
    total = sum(blob.size for blob in image.bootstrap.blobs)
    done = 0

    def progress(size: int) -> None:
        nonlocal done
        done += size
        advance(done, total)

    return unpack(image.bootstrap, read, dest, progress)
