"""Registries as a service speaks to them: with files of credentials, some in plain HTTP."""

from __future__ import annotations

import os
from pathlib import Path

from chunkstore.http import Client
from chunkstore.origins.credentials import Credential, Credentials
from chunkstore.origins.reference import Reference
from chunkstore.origins.registry import Registry

from .setup import Registries


class Proof(Credentials):
    """A credential that came with the request, else what the files say."""

    def __init__(self, told: Credential | None, registries: Registries) -> None:
        """*told* may be replaced at any time."""
        super().__init__((*registries.credentials, *_usual()), os.environ)
        self.told = told

    async def find(self, host: str) -> Credential | None:
        """Return the credential that was told, or look."""
        return self.told or await super().find(host)


def registry(
    reference: Reference, client: Client, registries: Registries, proof: Credentials
) -> Registry:
    """Return the repository of *reference*."""
    plain = is_plain(reference, registries)
    return Registry(reference, client, credentials=proof, plain_http=plain)


def is_plain(reference: Reference, registries: Registries) -> bool:
    """Say whether the registry of *reference* speaks HTTP."""
    return reference.host in registries.plain or reference.is_local


def _usual() -> list[Path]:
    home = Path(os.environ.get("HOME") or "/root")
    docker = Path(os.environ.get("DOCKER_CONFIG") or home / ".docker")
    return [docker / "config.json", Path("/run/containers/0/auth.json")]
