"""Registry: one repository of an OCI registry, asked with whatever proof it wants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from chunkstore.digest import Digest
from chunkstore.errors import ChunkstoreError
from chunkstore.http import Client, Request, Response, Url
from chunkstore.http.client import REDIRECTS, refused

from .challenge import challenges
from .credentials import Credentials
from .keyring import Keyring
from .reference import Reference

PULL, PUSH = "pull", "pull,push"

_TRIES = 3
"""Without a key, with one that has run out, with a new one."""


class Registry:
    """The repository that *reference* names; its keys are shared by all that use this object."""

    def __init__(
        self,
        reference: Reference,
        client: Client,
        *,
        credentials: Credentials | None = None,
        plain_http: bool = False,
        patience: float | None = None,
    ) -> None:
        """Allow *patience* seconds without progress, or as many as the client does."""
        self.reference = reference
        self.client = client
        self.patience = patience
        scheme = "http" if plain_http else "https"
        self._site = Url.parse(f"{scheme}://{reference.server}")
        self._keys = Keyring(client, self._site, reference.host, credentials or Credentials())

    def url(self, path: str) -> Url:
        """Return the url of *path* in the repository: ``blobs/sha256:…``, ``manifests/latest``."""
        return replace(self._site, target=f"/v2/{self.reference.repository}/{path}")

    def blob(self, digest: Digest) -> Request:
        """Return the question for a blob."""
        return Request("GET", self.url(f"blobs/{digest}"), patience=self.patience)

    @asynccontextmanager
    async def ask(
        self, request: Request, actions: str = PULL, *, redirects: int = REDIRECTS
    ) -> AsyncIterator[Response]:
        """Ask the registry, proving to it that *actions* are allowed.

        Only this registry is given proof, and only its own 401 is taken for a question: another
        host, to which it may redirect, gets neither key nor password. A url elsewhere is asked
        without proof.
        """
        is_ours = request.url.site == self._site.site
        scope = f"repository:{self.reference.repository}:{actions}"
        key = await self._keys.key(scope) if is_ours else None
        for left in range(_TRIES - 1, -1, -1):
            proven = replace(request, authorization=key)
            async with self.client.request(proven, redirects=redirects) as response:
                asks = response.status == 401 and response.url.site == self._site.site
                if not (asks and is_ours and left):
                    yield response
                    return
                offered = list(challenges(response.headers.get("www-authenticate", "")))
                await response.drain()
            key = await self._keys.renew(scope, key, offered)

    async def refusal(self, response: Response) -> ChunkstoreError:
        """Return the error that an unwanted answer is."""
        return await refused(response)

    async def proof(self) -> str | None:
        """Return what the registry was shown last for reading; None where it asked for nothing."""
        return await self._keys.key(f"repository:{self.reference.repository}:{PULL}")

    def __repr__(self) -> str:
        return f"Registry({self.reference})"
