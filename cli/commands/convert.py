"""``naiad convert``: an image in a registry becomes one that is loaded lazily."""

from __future__ import annotations

from typing import Unpack

import click

from chunkstore import Malformed
from chunkstore.origins.reference import Reference
from cli.building import How, build_options, facts, options_of
from cli.converting import Converter
from cli.ending import terminable
from cli.ends import ends, target_reference
from cli.options import WORD, json_option, setup_options
from cli.output import print_facts, print_json
from cli.progress import bar
from cli.setup import Setup
from rafs.errors import BadSource
from rafs.sources.documents import Platform


@click.command()
@click.argument("source", type=WORD, metavar="SRC-REF")
@click.argument("target", type=WORD, metavar="DST-REF")
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCHITECTURE[/VARIANT]",
    help="[default: all that there are]",
)
@click.option("--merge", is_flag=True, help="List the original images beside the lazy ones.")
@build_options
@setup_options
@json_option
def command(
    source: str,
    target: str,
    platforms: tuple[str, ...],
    merge: bool,
    setup: Setup,
    as_json: bool,
    **how: Unpack[How],
) -> None:
    """Convert an image in a registry to one that is loaded lazily, under another name.

    Config and labels stay as they are. With --merge one name serves every client: those that know
    lazy images take these, by the platform feature nydus.remoteimage.v1, others the originals.

    \b
    Examples:
      naiad convert registry.example/app:2 registry.example/app:2-lazy
      naiad convert --platform linux/amd64 --merge registry.example/app:2 registry.example/app:2
    """
    wanted = [_platform(text) for text in platforms]
    old, new = _reference(source), target_reference(target)
    if (old.host, old.repository, old.name) == (new.host, new.repository, new.name) and not merge:
        raise click.UsageError(f"{target} would name the lazy image alone: --merge keeps both")
    options = options_of(how, setup)
    told: list[dict[str, object]] = []
    with terminable(), ends(setup) as end:
        converter = Converter(end, setup, old, new)
        originals = converter.originals(wanted)
        beside = [converter.bring(one) for one in originals] if merge else []
        listed = []
        for original in originals:
            with bar(f"converting {original.platform}") as advance:
                result, image = converter.convert(original, options, advance)
            for warning in result.warnings:
                click.echo(f"naiad: {warning}", err=True)
            listed.append(image)
            told.append(
                {"platform": str(original.platform), "digest": image.digest, "built": result}
            )
            if not as_json:
                print_facts([("image", f"{original.platform}  {image.digest}"), *facts(result)])
        digest = converter.name(listed, beside)
    if as_json:
        print_json({"digest": digest, "images": told})
    else:
        click.echo(f"{target}@{digest}")


def _reference(text: str) -> Reference:
    try:
        return Reference.parse(text)
    except Malformed as exc:
        raise click.UsageError(str(exc)) from exc


def _platform(text: str) -> Platform:
    try:
        return Platform.parse(text)
    except BadSource as exc:
        raise click.UsageError(str(exc)) from exc
