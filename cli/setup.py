"""Setup: what commands that open images are told about how."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from chunkstore import Digest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setup:
    """Where things are kept, and how origins are spoken to."""

    cache: Path
    plain_http: bool = False
    """Speak HTTP with a registry."""
    patience: float = 30.0
    """Seconds without progress after which an origin is given up."""
    allow: tuple[str, ...] = ()
    """Of a hub's repository, patterns of the files that are wanted; none: all are."""
    ignore: tuple[str, ...] = ()
    """Patterns of those that are not."""
    ca: Path | None = None
    """Authorities that vouch for origins, besides the system's."""
    identity: tuple[Path, Path | None] | None = None
    """Our certificate for origins that ask for one, and its key where that is apart."""


@dataclass(frozen=True, slots=True)
class Safety:
    """How connections between hosts are secured."""

    papers: tuple[Path, Path, Path] | None = None
    """Certificate, key and CA."""
    insecure: bool = False
    """Plain connections beyond loopback are wanted."""


@dataclass(frozen=True, slots=True)
class Membership:
    """How a process takes part in a swarm."""

    schedulers: tuple[str, ...] = ()
    """``HOST:PORT`` each; none: it takes no part, unless it listens."""
    listen: str = ""
    """Where it uploads; empty: a free port of the address from which the scheduler is reached."""
    uploads: bool = True
    upload_limit: int | None = None
    """Bytes per second."""
    download_limit: int | None = None
    """Bytes per second, of what comes from peers."""
    slots: int | None = None
    """Uploads at once; None: as many as its kind of host has."""
    idc: str = ""
    location: str = ""
    metrics: str = ""
    """``HOST:PORT`` where Prometheus is answered; empty: nowhere."""
    safety: Safety = Safety()


class Prefetch(enum.Enum):
    """What a mount fetches before anybody reads it."""

    NONE = "none"
    ALL = "all"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class MountRequest:
    """What a mount's daemon is told."""

    image: str
    """An absolute path, or a name that means the same everywhere."""
    setup: Setup
    pin: Digest | None
    """What the bootstrap must hash to."""
    cache_limit: int | None
    """Bytes."""
    prefetch: Prefetch
    membership: Membership = Membership()
    trace: Path | None = None
    """Where the paths of files go as they are read first."""
    mountpoint: Path = Path("/")
    hf_cache: Path | None = None
    """Where the hub's own programs look for models."""


@dataclass(frozen=True, slots=True)
class DaemonRequest:
    """What the daemon is told that was forked before it was known what is to be mounted."""

    mount: MountRequest
    log_level: str


@dataclass(frozen=True, slots=True)
class Registries:
    """How registries are spoken to."""

    plain: tuple[str, ...] = ()
    """Hosts that speak HTTP; those on loopback do."""
    credentials: tuple[Path, ...] = ()
    """Files with credentials, beside those where Docker and Podman keep them."""


@dataclass(frozen=True, slots=True)
class GalleryRequest:
    """What the daemon of a session of many images is told."""

    setup: Setup
    registries: Registries
    folder: Path
    """The session's state folder."""
    cache_limit: int | None = None
    """Bytes."""
    prefetch: Prefetch = Prefetch.LIST
    membership: Membership = Membership()
    driver: str = "auto"
    """How images are shown: ``fuse``, ``erofs``, or ``auto``."""


@dataclass(frozen=True, slots=True)
class SnapshotterRequest:
    """How the snapshotter is set up."""

    root: Path
    address: Path
    """Its socket."""
    gallery: GalleryRequest | None
    """How images are loaded lazily; None: none are."""
    state: Path | None
    containerd: Path
    """containerd's own socket, for pulls."""
    log_level: str


def encoded(request: object) -> str:
    """Return one of these as text, for a process of its own."""
    return msgspec.json.encode(request, enc_hook=os.fspath).decode()


def decoded(text: str, kind: type[T]) -> T:
    """Read what `encoded` wrote."""
    return msgspec.json.decode(text, type=kind, dec_hook=_path)


def _path(kind: type, value: str) -> object:
    return kind(value)
