"""The client that everything on the command line speaks HTTP with."""

from __future__ import annotations

import os

from chunkstore.http import Client, Deadlines, Proxies

from .setup import Setup


def client_of(setup: Setup) -> Client:
    """Return a client for HTTP, with the proxies that the environment names."""
    deadlines = Deadlines(progress=setup.patience)
    return Client(proxies=Proxies.of(os.environ), deadlines=deadlines)
