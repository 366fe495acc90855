"""``naiad build``: from files to an image."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict, Unpack

import click

from chunkstore import Codec
from cli.ends import ends
from cli.options import Parsed, codec_option, hub_options, json_option, parse_size, setup_options
from cli.output import human, print_facts, print_json
from cli.progress import bar
from cli.setup import Setup
from cli.stack import open_all
from cli.trial import Trial, trial_options
from rafs.builder import BuildOptions, BuildResult, build
from rafs.chunking import checked_chunk_size


class _How(TypedDict):
    chunk_size: int | None
    codec: Codec
    prefetch: tuple[bytes, ...]
    trace: Trial | None
    threads: int | None


def _paths(ctx: click.Context, param: click.Parameter, file: Path | None) -> tuple[bytes, ...]:
    lines = file.read_bytes().splitlines() if file else []
    return tuple(line for line in lines if line and not line.startswith(b"#"))


def parse_chunk_size(text: str) -> int | None:
    """Return a size that RAFS allows, or None for ``auto``; raises ValueError, Malformed."""
    return None if text == "auto" else checked_chunk_size(parse_size(text))


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_CHUNK = Parsed("chunk size", parse_chunk_size, "auto, or a power of two from 4KiB to 16MiB")


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--chunk-size", type=_CHUNK, default="auto", help="auto, or 4KiB to 16MiB.")
@codec_option
@click.option("--chunk-dict", "dicts", multiple=True, metavar="IMAGE", help="Its chunks are used.")
@click.option("--prefetch-list", "prefetch", type=_FILE, callback=_paths, help="Paths, one a line.")
@trial_options
@click.option("--threads", type=click.IntRange(min=1), help="[default: one per core]")
@setup_options
@hub_options
@json_option
def command(
    source: str,
    target: str,
    dicts: tuple[str, ...],
    setup: Setup,
    as_json: bool,
    **how: Unpack[_How],
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
      naiad build --chunk-dict ./image /opt/app-2 ./image-2
    """
    if dicts and how["trace"] is not None:
        raise click.UsageError("--prefetch-from needs all the image: leave out --chunk-dict")
    options = BuildOptions(dicts=open_all(dicts, setup), **how)
    with ends(setup) as end, bar("building") as advance:
        result = build(end.source(source), end.target(target), options, advance)
    for warning in result.warnings:
        click.echo(f"naiad: {warning}", err=True)
    if as_json:
        print_json(result)
    else:
        print_facts(_facts(result))


def _facts(result: BuildResult) -> list[tuple[str, object]]:
    return [
        ("bootstrap", f"{result.bootstrap}  {human(result.bootstrap_size)}"),
        ("blob", f"{result.blob or 'none of its own'}  {human(result.blob_size)}"),
        ("files", f"{human(result.size)}, {human(result.shared)} of it stored once already"),
        ("chunks", f"{result.chunks} of up to {human(result.chunk_size)}"),
    ]
