"""How images are built, as ``build`` and ``convert`` are told, and what they tell then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import click

from chunkstore import Codec
from rafs.builder import BuildOptions, BuildResult
from rafs.chunking import checked_chunk_size
from rafs.targets.directory import BLOBS

from .opening import open_all
from .options import Parsed, codec_option, parse_size
from .output import human
from .setup import Setup
from .trial import Trial, trial_options


class How(TypedDict):
    """What `build_options` adds."""

    dicts: tuple[str, ...]
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


def build_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add the options that say how an image is built."""
    size = "auto, or 4KiB to 16MiB."
    for option in (
        click.option("--threads", type=click.IntRange(min=1), help="[default: one per core]"),
        trial_options,
        click.option(
            "--prefetch-list", "prefetch", type=_FILE, callback=_paths, help="Paths, one a line."
        ),
        click.option(
            "--chunk-dict",
            "dicts",
            multiple=True,
            metavar="IMAGE",
            help="Its chunks are used; blobs of a folder are linked into a new folder.",
        ),
        codec_option,
        click.option("--chunk-size", type=_CHUNK, metavar="SIZE", default="auto", help=size),
    ):
        command = option(command)
    return command


def options_of(how: How, setup: Setup) -> BuildOptions:
    """Return the options of a build, with the images that lend it chunks open."""
    dicts, trace = how["dicts"], how["trace"]
    if dicts and trace is not None:
        trace = replace(trace, lenders=_folders(dicts))
    return BuildOptions(
        codec=how["codec"],
        chunk_size=how["chunk_size"],
        dicts=open_all(dicts, setup),
        prefetch=how["prefetch"],
        trace=trace,
        threads=how["threads"],
    )


def _folders(dicts: tuple[str, ...]) -> tuple[Path, ...]:
    """Return where the blobs of *dicts* lie, for a mount of what is built; raises UsageError."""
    folders = tuple(Path(name) / BLOBS for name in dicts)
    for name, folder in zip(dicts, folders, strict=True):
        if not folder.is_dir():
            raise click.UsageError(
                f"--prefetch-from needs all the image here: {name} is no folder with {BLOBS}/"
            )
    return folders


def facts(result: BuildResult) -> list[tuple[str, object]]:
    """Return what is told of an image that was built."""
    return [
        ("bootstrap", f"{result.bootstrap}  {human(result.bootstrap_size)}"),
        ("blob", f"{result.blob or 'none of its own'}  {human(result.blob_size)}"),
        ("files", f"{human(result.size)}, {human(result.shared)} of it stored once already"),
        ("chunks", f"{result.chunks} of up to {human(result.chunk_size)}"),
    ]
