"""Options that several commands share, and the types that their values are read with."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import click

from chunkstore import Algorithm, Codec, Digest, Malformed

from .setup import Membership, Prefetch, Safety, Setup

_BINARY = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?b|bit)?(?:/s|ps)?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)?")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_OWN_HEADERS = frozenset(
    {"host", "range", "if-range", "accept-encoding", "content-length", "transfer-encoding"}
)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_size(text: str) -> int:
    """Return the bytes that ``50GiB``, ``50G`` (the same), ``50GB`` or ``100mbit`` stand for.

    Raises ValueError for anything else.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(text)
    number, prefix, unit = found[1], found[2].lower(), (found[3] or "ib").lower()
    base = 1024 if unit == "ib" else 1000
    value = float(number) * base ** _BINARY[prefix]
    return int(value / 8 if unit == "bit" else value)


def parse_duration(text: str) -> float:
    """Return the seconds that ``30s``, ``500ms``, ``2m`` or ``30`` stand for, else ValueError."""
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise ValueError(text)
    return float(found[1]) * _SECONDS[found[2] or "s"]


def parse_room(text: str) -> int:
    """Return a size that something fits into; raises ValueError for nothing."""
    return parse_size(text) or _refuse(text)


def parse_patience(text: str) -> float:
    """Return a time in which something can happen; raises ValueError for none."""
    return parse_duration(text) or _refuse(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)


def parse_pin(text: str) -> Digest:
    """Return the SHA-256 that *text* gives; raises ValueError."""
    digest = Digest.parse(text)
    if digest.algorithm is not Algorithm.SHA256:
        raise ValueError(text)
    return digest


class Parsed(click.ParamType[object]):
    """A value that a parsing function reads; what it raises becomes a usage error."""

    def __init__(self, name: str, parse: Callable[[str], object], example: str) -> None:
        self.name = name
        self._parse = parse
        self._example = example

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """Parse *value* unless it has been."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except (ValueError, Malformed):
            self.fail(f"{value!r} is no {self.name.lower()} such as {self._example}", param, ctx)


class _Header(click.ParamType[tuple[str, str]]):
    """``NAME: VALUE``, which no error repeats: it may be a secret."""

    name = "HEADER"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Split name and value."""
        found = _HEADER.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            self.fail("not a header such as 'Accept: text/html'", param, ctx)
        if found[1].lower() in _OWN_HEADERS:
            self.fail(f"{found[1]} is set by naiad itself", param, ctx)
        return found[1], found[2].strip()


class _Word(click.ParamType[str]):
    """A word that is not empty, as what a script has no value for is."""

    name = "text"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Refuse an empty word: as a path it would be the working directory."""
        if not value:
            self.fail("it is empty", param, ctx)
        return str(value)


class _Place(click.Path):
    """A path that is not empty."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty word: `Path` takes it for the working directory."""
        return super().convert(value or WORD.convert(value, param, ctx), param, ctx)


SIZE = Parsed("SIZE", parse_size, "50GiB")
ROOM = Parsed("SIZE", parse_room, "50GiB")
HEADER = _Header()
DURATION = Parsed("DURATION", parse_patience, "30s")
DIGEST = Parsed("DIGEST", parse_pin, "sha256: and 64 hexadecimal digits")
WORD = _Word()
PLACE = _Place(path_type=Path, allow_dash=True)
FOLDER = _Place(file_okay=False, path_type=Path)


def parse_address(text: str) -> str:
    """Return ``HOST:PORT`` as it is; raises ValueError for anything else."""
    host, _, port = text.rpartition(":")
    if not text:
        return text
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(text)
    return text


def parse_scheduler(text: str) -> str:
    """Return ``HOST:PORT``, or ``self``; raises ValueError."""
    return text if text == "self" else parse_address(text)


SCHEDULER = Parsed("ADDRESS", parse_scheduler, "10.0.0.1:7000")
ADDRESS = Parsed("ADDRESS", parse_address, "10.0.0.1:7000")


def default_cache() -> Path:
    """Return the cache folder of this user: root and users never share one."""
    if os.geteuid() == 0:
        return Path("/var/cache/naiad")
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "naiad"


cache_option = click.option(
    "--cache",
    type=FOLDER,
    envvar="NAIAD_CACHE",
    default=default_cache,
    help="The blob cache.  [default: /var/cache/naiad, or ~/.cache/naiad without root]",
)

codec_option = click.option(
    "--codec",
    type=click.Choice(["lz4", "zstd", "none"]),
    default="lz4",
    show_default=True,
    callback=lambda ctx, param, value: Codec[value.upper()],
    help="Left out for chunks that it saves less than 3 % of.",
)

cache_limit_option = click.option(
    "--cache-limit", type=ROOM, help="What the whole cache may take on the disk."
)

prefetch_option = click.option(
    "--prefetch",
    type=click.Choice([mode.value for mode in Prefetch]),
    default=Prefetch.LIST.value,
    show_default=True,
    callback=lambda ctx, param, value: Prefetch(value),
    help="Fetch ahead nothing, all of it, or what the image lists.",
)

read_deadline_option = click.option(
    "--read-deadline",
    type=DURATION,
    default="30s",
    show_default=True,
    help="A read fails after so long without progress.",
)

digest_option = click.option(
    "--digest",
    type=DIGEST,
    help="What the image's bootstrap must hash to; else nothing is read from it.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

state_option = click.option(
    "--state",
    type=FOLDER,
    envvar="NAIAD_STATE",
    help="Where mounts are noted.  [default: /run/naiad, or $XDG_RUNTIME_DIR/naiad]",
)


_PEM = click.Path(exists=True, dir_okay=False, path_type=Path)


def setup_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add ``--cache`` and how origins are spoken to, which *command* gets as one Setup."""

    @cache_option
    @click.option(
        "--plain-http",
        is_flag=True,
        help="Speak HTTP, not HTTPS, with a registry; with one on loopback that is so.",
    )
    @click.option("--origin-ca", type=_PEM, help="Trust this CA with origins, too.")
    @click.option("--origin-certificate", type=_PEM, help="Show this to origins that ask for it.")
    @click.option("--origin-key", type=_PEM, help="Its key, if it is in a file of its own.")
    @functools.wraps(command)
    def gathered(
        cache: Path,
        plain_http: bool,
        origin_ca: Path | None,
        origin_certificate: Path | None,
        origin_key: Path | None,
        **others: object,
    ) -> object:
        if origin_key and not origin_certificate:
            raise click.UsageError("--origin-key needs --origin-certificate")
        identity = None
        if origin_certificate:
            key = origin_key.absolute() if origin_key else None
            identity = origin_certificate.absolute(), key
        ca = origin_ca.absolute() if origin_ca else None
        setup = Setup(cache.absolute(), plain_http, ca=ca, identity=identity)
        return command(setup=setup, **others)

    return gathered


def safety_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add ``--certificate``, ``--key``, ``--ca`` and ``--insecure``: *command* gets one Safety."""

    @click.option("--certificate", type=_PEM, help="This host's certificate (naiad pki issue).")
    @click.option("--key", type=_PEM, help="Its key.")
    @click.option(
        "--ca", type=_PEM, help="The swarm's CA, which other hosts must be vouched for by."
    )
    @click.option("--insecure", is_flag=True, help="Connect beyond loopback without TLS.")
    @functools.wraps(command)
    def gathered(
        certificate: Path | None,
        key: Path | None,
        ca: Path | None,
        insecure: bool,
        **others: object,
    ) -> object:
        if certificate and key and ca:
            # Not resolved: what renews them may do so by a link that points elsewhere.
            papers = (certificate.absolute(), key.absolute(), ca.absolute())
        elif certificate or key or ca:
            raise click.UsageError("--certificate, --key and --ca go together")
        else:
            papers = None
        return command(safety=Safety(papers, insecure), **others)

    return gathered


def hub_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add ``--allow`` and ``--ignore``, which go into the Setup; stands below `setup_options`."""

    @click.option("--allow", multiple=True, metavar="PATTERN", help="hf: only files that fit.")
    @click.option("--ignore", multiple=True, metavar="PATTERN", help="hf: no files that fit.")
    @functools.wraps(command)
    def gathered(
        allow: tuple[str, ...], ignore: tuple[str, ...], setup: Setup, **others: object
    ) -> object:
        return command(setup=replace(setup, allow=allow, ignore=ignore), **others)

    return gathered


scheduler_option = click.option(
    "--scheduler",
    "schedulers",
    type=SCHEDULER,
    multiple=True,
    metavar="HOST:PORT",
    help="A scheduler of the swarm; may be given several times.",
)

upload_limit_option = click.option(
    "--upload-limit", type=SIZE, help="Bytes per second to peers, such as 10MB/s or 100mbit."
)

slots_option = click.option(
    "--upload-slots", "slots", type=click.IntRange(1, 50_000), help="Uploads at once."
)


metrics_option = click.option(
    "--metrics",
    type=ADDRESS,
    default="",
    metavar="HOST:PORT",
    help="Answer Prometheus here, at /metrics.",
)


def membership_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add what a host of a swarm is told, which *command* gets as one Membership."""

    @click.option("--no-upload", is_flag=True, help="Download from peers only.")
    @functools.wraps(command)
    def gathered(no_upload: bool, membership: Membership, **others: object) -> object:
        return command(membership=replace(membership, uploads=not no_upload), **others)

    return seed_options(gathered)


def seed_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add what a host is told that always uploads."""

    @scheduler_option
    @click.option(
        "--listen",
        type=ADDRESS,
        metavar="HOST:PORT",
        help="Upload here.  [default: a free port, where the scheduler can reach it]",
    )
    @upload_limit_option
    @click.option("--download-limit", type=SIZE, help="Bytes per second from peers.")
    @slots_option
    @click.option("--idc", default="", help="The data centre; peers in the same one come first.")
    @click.option("--location", default="", help="COUNTRY|PROVINCE|CITY, as far as it is known.")
    @metrics_option
    @safety_options
    @functools.wraps(command)
    def gathered(
        schedulers: tuple[str, ...],
        listen: str | None,
        safety: Safety,
        **others: object,
    ) -> object:
        names = ("upload_limit", "download_limit", "slots", "idc", "location", "metrics")
        if others["metrics"] and not schedulers and not listen:
            raise click.UsageError("--metrics tells of a swarm: give --scheduler or --listen")
        told: dict[str, Any] = {name: others.pop(name) for name in names}
        membership = Membership(tuple(schedulers), listen or "", safety=safety, **told)
        return command(membership=membership, **others)

    return gathered
