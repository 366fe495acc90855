"""The client that everything on the command line speaks HTTP with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from chunkstore.http import Client, Deadlines, Fence, Identity, Proxies, Trust, UrlPattern

from .setup import Setup

_FOLDERS = "/etc/containers/certs.d", "/etc/docker/certs.d"
_OWN_FOLDER = ".config/containers/certs.d"
"""Where Docker, Podman and skopeo find certificates for a registry."""


def client_of(setup: Setup) -> Client:
    """Return a client for HTTP, with the proxies that the environment names."""
    identity = Identity(*setup.identity) if setup.identity else None
    trust = Trust(ca_file=setup.ca, identity=identity, folders=_folders())
    deadlines = Deadlines(progress=setup.patience)
    return Client(proxies=Proxies.of(os.environ), trust=trust, deadlines=deadlines)


def fenced_client(
    setup: Setup, patterns: Sequence[UrlPattern], *, local: bool
) -> tuple[Client, Fence]:
    """Return a client that reads for others, and what says where it may go.

    Where nothing lies beyond this machine, *local*, it reads this machine's servers as well. It
    shows nobody a certificate of ours: others would read by it what is not theirs.
    """
    deadlines, proxies = Deadlines(progress=setup.patience), Proxies.of(os.environ)
    fence = Fence(patterns, local=local, proxies=proxies)
    trust = Trust(ca_file=setup.ca, folders=_folders(), is_nobody=True)
    return Client(proxies=proxies, trust=trust, deadlines=deadlines, dial=fence), fence


def _folders() -> Sequence[Path]:
    home = os.environ.get("HOME")
    return [*map(Path, _FOLDERS), *([Path(home, _OWN_FOLDER)] if home else [])]
