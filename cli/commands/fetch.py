"""``naiad fetch``: a file at a url, resumable, through the swarm where there is one."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TypedDict, Unpack
from urllib.parse import unquote, urlsplit

import click

from chunkstore import Digest
from cli.fetching import FetchRequest, run, summary
from cli.options import (
    DIGEST,
    HEADER,
    PLACE,
    SIZE,
    WORD,
    json_option,
    membership_options,
    setup_options,
)
from cli.output import print_json
from cli.progress import transfer_bar
from cli.setup import Membership, Setup


class _Told(TypedDict):
    headers: tuple[tuple[str, str], ...]
    digest: Digest | None
    tag: str
    shared: bool
    rate_limit: int | None
    membership: Membership


@click.command()
@click.argument("url", type=WORD)
@click.option(
    "-o",
    "--output",
    type=PLACE,
    help="- is stdout.  [default: the url's last part; of a blob, its REPO-DIGEST]",
)
@click.option("--digest", type=DIGEST, help="What the file must hash to.")
@click.option("-H", "--header", "headers", type=HEADER, multiple=True, help="For the origin.")
@click.option("--tag", default="", help="Tells files at one url apart.")
@click.option("--ignore-query", "ignored", default="", help="Keys that only sign the url: a,b,c.")
@click.option("--share", "shared", is_flag=True, help="Give all hosts what --header opens.")
@click.option("--rate-limit", type=SIZE, help="Bytes per second: 10MiB, 100mbit.")
@json_option
@setup_options
@membership_options
def command(
    url: str,
    output: Path | None,
    ignored: str,
    as_json: bool,
    setup: Setup,
    **told: Unpack[_Told],
) -> None:
    """Fetch a file; what is here already is not fetched again.

    URL is http(s), or a blob in a registry: HOST/REPO@sha256:…. The file appears whole under its
    name, in place of one that was there, or not at all. A fetch that was broken off goes on where
    it was; a file that was replaced at its origin is begun anew.

    \b
    Examples:
      naiad fetch https://models.example/weights.safetensors -o weights
      naiad fetch --digest sha256:… -H 'Authorization: Bearer …' https://host.example/file
      naiad fetch --ignore-query X-Amz-Date,X-Amz-Signature 'https://bucket.example/file?…'
    """
    keys = frozenset(key for key in ignored.split(",") if key)
    request = FetchRequest(url, output_file(url, output), setup, ignored=keys, **told)
    with transfer_bar(request.output.name) as shown:
        done = run(request, shown)
    print_json(done) if as_json else click.echo(f"naiad: {summary(done)}", err=True)


def _name(url: str) -> str:
    """Return what a file is called of which only the url is known."""
    name = unquote(PurePosixPath(urlsplit(url).path).name).replace("/", "_")
    repository, mark, digest = name.partition("@sha256:")
    return f"{repository}-{digest[:12]}" if mark else name


def output_file(url: str, given: Path | None) -> Path:
    """Return the file to write."""
    if given == Path("-"):
        return given
    if "://" in url and not url.startswith(("http://", "https://", "oci://")):
        scheme = url.partition("://")[0]
        raise click.UsageError(f"{scheme}: what is fetched is http(s), or HOST/REPO@sha256:…")
    path = given or Path(_name(url))
    if given is None and not path.name:
        raise click.UsageError("the url ends in no name: give -o FILE")
    if not path.name or path.is_dir():
        raise click.UsageError(f"-o {given or ''}: name a file, not a directory")
    return path
