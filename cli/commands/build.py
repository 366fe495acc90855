"""``naiad build``: from files to an image."""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

import click

from chunkstore import Codec
from cli.building import How, build_options, facts, options_of
from cli.ending import terminable
from cli.ends import ends
from cli.options import WORD, hub_options, json_option, setup_options
from cli.output import print_facts, print_json
from cli.progress import bar
from cli.setup import Setup
from rafs.builder import build


@click.command()
@click.argument("source", type=WORD)
@click.argument("target", type=WORD)
@click.option(
    "--format",
    "form",
    type=click.Choice(["rafs", "modelpack"]),
    default="rafs",
    show_default=True,
    help="An image to be mounted, or a model artifact of plain files for anybody.",
)
@build_options
@setup_options
@hub_options
@json_option
def command(
    source: str, target: str, form: str, setup: Setup, as_json: bool, **how: Unpack[How]
) -> None:
    """Build an image from a directory, tar or container image.

    SOURCE is a directory, a tar (also .gz or .zst; - is standard input), oci:DIR[:TAG], an image in
    a registry, HOST[:PORT]/REPO[:TAG], or a model of the Hugging Face Hub, hf:ORG/NAME[@REVISION].
    TARGET is a directory, made if need be, oci:DIR[:TAG], or a name in a registry.

    \b
    Examples:
      naiad build /opt/app ./image
      naiad build --codec zstd --prefetch-list first.txt app.tar.gz ./image
      naiad build registry.example/app:2 registry.example/app:2-lazy
      naiad build --prefetch-from 'app --selftest' oci:./app oci:./app-lazy
      naiad build --ignore '*.bin' hf:org/model ./image
      naiad build --format modelpack hf:org/model registry.example/models/model:1
      naiad build --chunk-dict ./image /opt/app-2 ./image-2
    """
    options = options_of(how, setup)
    if form == "modelpack":
        if options.dicts:
            raise click.UsageError("a model artifact holds its files: leave out --chunk-dict")
        options = replace(options, codec=Codec.NONE)  # the packed blob is only a way to the files
    with terminable(), ends(setup) as end, bar("building") as advance:
        result = build(end.source(source), end.target(target, form, how["dicts"]), options, advance)
    for warning in result.warnings:
        click.echo(f"naiad: {warning}", err=True)
    if as_json:
        print_json(result)
    else:
        print_facts(facts(result))
