"""The client that everything on the command line speaks HTTP with."""

from __future__ import annotations

import os
from collections.abc import Sequence

from chunkstore.http import Client, Deadlines, Fence, Proxies, UrlPattern

from .setup import Setup


def client_of(setup: Setup) -> Client:
    """Return a client for HTTP, with the proxies that the environment names."""
    deadlines = Deadlines(progress=setup.patience)
    return Client(proxies=Proxies.of(os.environ), deadlines=deadlines)


def fenced_client(
    setup: Setup, patterns: Sequence[UrlPattern], *, local: bool
) -> tuple[Client, Fence]:
    """Return a client that reads for others, and what says where it may go.

    Where nothing lies beyond this machine, *local*, it reads this machine's servers as well.
    """
    deadlines, proxies = Deadlines(progress=setup.patience), Proxies.of(os.environ)
    fence = Fence(patterns, local=local, proxies=proxies)
    return Client(proxies=proxies, deadlines=deadlines, dial=fence), fence
