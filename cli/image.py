"""IMAGE: what a command line may name an image by, resolved to the place where it lies.

======================================  ========================================================
``oci:DIR[:TAG]``                       an OCI layout
``http://…``, ``https://…``             the url of a directory that ``naiad build`` made
a path that exists                      such a directory, one as nydus-image's users lay it out,
                                        or a blob file with the bootstrap inside
``HOST[:PORT]/REPO[:TAG][@sha256:…]``   a registry reference
======================================  ========================================================
"""

from __future__ import annotations

import os
from pathlib import Path

from chunkstore import Malformed, Missing
from chunkstore.http import Client
from chunkstore.origins.credentials import Credentials
from chunkstore.origins.http import HttpOrigin
from chunkstore.origins.reference import Reference
from chunkstore.origins.registry import Registry

from .names import is_remote, split_layout
from .oci import in_layout, in_registry
from .places import Folder, Place, in_directory, in_file


def find(text: str, client: Client, *, plain_http: bool = False) -> Place:
    """Return the place that *text* names; raises Missing, Malformed or BadImage."""
    if is_remote(text):
        return Folder(HttpOrigin(text, client))
    if text.startswith("oci:"):
        return in_layout(*split_layout(text))
    path = Path(text)
    if path.is_dir():
        return in_directory(path)
    if path.is_file():
        return in_file(path)
    if text.startswith((".", "/")):
        raise Missing(f"{text}: no such file or directory")
    return in_registry(registry(reference(text), client, plain_http=plain_http))


def reference(text: str) -> Reference:
    """Read a registry reference; raises Missing for what cannot be one."""
    try:
        return Reference.parse(text)
    except Malformed as exc:
        raise Missing(f"{text}: no such file or directory, and no registry reference") from exc


def registry(named: Reference, client: Client, *, plain_http: bool) -> Registry:
    """Return the registry that *named* lies in, spoken to as this user."""
    who = Credentials.of(os.environ)
    plain = plain_http or named.is_local
    return Registry(named, client, credentials=who, plain_http=plain)
