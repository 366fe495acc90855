"""``naiad inspect``: what is in an image."""

from __future__ import annotations

import click
import trio

from chunkstore import Digest
from cli.opening import opened
from cli.options import WORD, digest_option, json_option, setup_options
from cli.output import human, print_facts, print_json, print_table
from cli.setup import Setup
from cli.survey import BlobFacts, ImageFacts, PathFacts, survey, survey_path


@click.command()
@click.argument("image", type=WORD)
@click.argument("path", required=False)
@setup_options
@digest_option
@json_option
def command(
    image: str, path: str | None, setup: Setup, digest: Digest | None, as_json: bool
) -> None:
    """Tell what is in an image.

    With PATH, tell of one file or directory: its attributes, and where its data lies.

    \b
    Examples:
      naiad inspect ./image
      naiad inspect ./image usr/bin/python3
      naiad inspect --json http://images.example/app
    """

    async def look() -> ImageFacts | PathFacts:
        async with opened(image, setup, digest) as found:
            if path is None:
                return await trio.to_thread.run_sync(survey, found.bootstrap, found.digest)
            return survey_path(found.bootstrap, path)

    facts = trio.run(look)
    if as_json:
        print_json(facts)
    elif isinstance(facts, ImageFacts):
        _tell_image(facts)
    else:
        _tell_path(facts)


def _tell_image(facts: ImageFacts) -> None:
    how = f"RAFS v{facts.version}, {facts.codec.name.lower()}, {facts.algorithm.value}"
    kinds = ", ".join(f"{count} {kind}" for kind, count in facts.inodes.items())
    print_facts(
        [
            ("bootstrap", facts.bootstrap),
            ("format", how),
            ("inodes", kinds),
            ("files", f"{human(facts.size)}, {human(facts.holes)} of it holes"),
            ("chunks", f"{facts.chunks}, {human(facts.unique)} when each is counted once"),
            ("stored", human(facts.stored)),
        ]
    )
    head = ("blob", "size", "stored", "chunks", "of them used")
    print_table(head, [_row(blob) for blob in facts.blobs])


def _row(blob: BlobFacts) -> tuple[object, ...]:
    return blob.id, human(blob.size), human(blob.stored_size), blob.chunks, blob.used


def _tell_path(facts: PathFacts) -> None:
    print_facts([(name, value) for name, value in facts.shown() if value not in ("", None)])
    if facts.chunks:
        head = ("digest", "offset", "size", "stored", "blob", "index")
        print_table(head, [chunk.row() for chunk in facts.chunks])
