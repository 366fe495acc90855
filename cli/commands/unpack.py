"""``naiad unpack``: an image's files, all of them, without mounting it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import trio

from chunkstore import Digest
from chunkstore.outfile import unfinished
from cli.ending import run_to_end
from cli.opening import Image, opened, reader
from cli.options import PLACE, WORD, digest_option, setup_options
from cli.progress import Advance, bar
from cli.setup import Setup
from rafs.content import Reader
from rafs.storedreader import StoredReader
from rafs.unpack import Advance as Told
from rafs.unpack import unpack
from rafs.untar import unpack_tar


@click.command()
@click.argument("image", type=WORD)
@click.argument("dest", type=PLACE)
@setup_options
@digest_option
def command(image: str, dest: Path, setup: Setup, digest: Digest | None) -> None:
    """Write an image's files to a directory or a tar.

    DEST ending in .tar is a tar, - a tar on standard output, anything else a new or empty
    directory. Every chunk is verified; what this user may not restore is told once.

    \b
    Examples:
      naiad unpack ./image /srv/app
      naiad unpack registry.example/app:2 app.tar
      naiad unpack ./image - | tar -tv
    """

    async def work() -> list[str]:
        async with opened(image, setup, digest) as found:
            stored = StoredReader(reader(found.origin))
            with bar("unpacking") as advance:
                return await trio.to_thread.run_sync(_unpack, found, stored, dest, advance)

    for word in run_to_end(work):
        click.echo(f"naiad: {word}", err=True)


def _unpack(image: Image, read: Reader, dest: Path, advance: Advance) -> list[str]:
    total = sum(blob.size for blob in image.bootstrap.blobs)

    def progress(done: int) -> None:
        trio.from_thread.check_cancelled()
        advance(min(done, total), total)

    if str(dest) == "-":
        return unpack_tar(image.bootstrap, read, sys.stdout.buffer.write, progress)
    if dest.suffix == ".tar":
        return _to_tar(image, read, dest, progress)
    return unpack(image.bootstrap, read, dest, progress)


def _to_tar(image: Image, read: Reader, dest: Path, progress: Told) -> list[str]:
    with unfinished(dest) as handle, os.fdopen(handle, "wb", 1 << 20, closefd=False) as out:
        return unpack_tar(image.bootstrap, read, out.write, progress)
