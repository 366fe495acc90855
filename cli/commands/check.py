"""``naiad check``: what is wrong with an image."""

from __future__ import annotations

import click
import trio

from chunkstore import Digest
from cli.ending import run_to_end
from cli.opening import Image, opened, reader
from cli.options import WORD, digest_option, json_option, setup_options
from cli.output import print_json
from cli.progress import Advance, bar
from cli.setup import Setup
from rafs.check import findings
from rafs.verify import damages

_MOST = 1000
"""Findings about a bootstrap after which looking for more tells nobody anything."""


@click.command()
@click.argument("image", type=WORD)
@click.option("--data", is_flag=True, help="Fetch every chunk and verify it, too.")
@setup_options
@digest_option
@json_option
@click.pass_context
def command(
    ctx: click.Context, image: str, data: bool, setup: Setup, digest: Digest | None, as_json: bool
) -> None:
    """Look for faults in an image's metadata and data.

    Prints a line for each; the exit code is 1 if there are any.

    \b
    Examples:
      naiad check ./image
      naiad check --data http://images.example/app
    """

    async def look() -> list[str]:
        async with opened(image, setup, digest) as found:
            said = await trio.to_thread.run_sync(_of_bootstrap, found)
            if data:
                with bar("verifying") as advance:
                    said += await _of_data(found, advance)
            return said

    found = run_to_end(look)
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(found) or "no fault found")
    ctx.exit(1 if found else 0)


def _of_bootstrap(image: Image) -> list[str]:
    found = []
    for finding in findings(image.bootstrap):
        found.append(str(finding))
        if len(found) == _MOST:
            return [*found, "and more"]
    return found


async def _of_data(image: Image, advance: Advance) -> list[str]:
    total = sum(blob.size for blob in image.bootstrap.blobs)
    done = 0

    def progress(size: int, _: int) -> None:
        nonlocal done
        trio.from_thread.check_cancelled()
        done += size
        advance(done, total)

    def look() -> list[str]:
        return [str(found) for found in damages(image.bootstrap, read, progress=progress)]

    read = reader(image.origin, trio.lowlevel.current_trio_token())
    return await trio.to_thread.run_sync(look)
