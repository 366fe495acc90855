"""Admission: who may have what a seed reads with credentials of its own.

A seed that may read a private repository must not give it to whoever knows a chunk's digest. So a
child shows it, when it follows a task, what it shows the registry itself: a token for reading, or
what it has for one. The seed asks the registry with that and nothing else, and remembers the answer
for a while. What everybody may read it gives to everybody.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import trio
from blake3 import blake3

from chunkstore import Algorithm, ChunkstoreError, Digest, Malformed
from chunkstore.http import Request
from chunkstore.origins.registry import Registry

from .messages import Description

logger = logging.getLogger(__name__)

REMEMBERED = 300.0
"""Seconds for which an answer holds; tokens live about as long."""

MOST = 10_000
"""Answers that are remembered."""

PATIENCE = 10.0
"""Seconds for a registry to answer."""

Anonymous = Callable[[str], Registry | None]
"""Returns the registry of a description's origin, asked as nobody; None where it is none."""


class Admission:
    """Asks registries whether children may read what they want."""

    def __init__(self, anonymous: Anonymous) -> None:
        self._anonymous = anonymous
        self._answers: OrderedDict[bytes, tuple[bool, float]] = OrderedDict()

    async def admits(self, description: Description) -> bool:
        """Say whether who sent *description* may have what it names; never raises."""
        try:
            with trio.fail_after(PATIENCE):
                return await self._admits(description)
        except (ChunkstoreError, trio.TooSlowError) as exc:
            logger.info("not admitted blob=%s reason=%s", description.name[:80], exc)
            return False

    async def _admits(self, description: Description) -> bool:
        registry = self._anonymous(description.origin)
        if registry is None:  # no credentials of ours are used there
            return True
        proofs = [value for name, value in description.headers if name == "Authorization"]
        for proof in (None, *proofs[:1]):
            key = blake3(f"{description.origin}\0{description.name}\0{proof}".encode()).digest()
            known = self._remembered(key)
            if known is None:
                known = await _reads(registry, description.name, proof)
                self._remember(key, known)
            if known:
                return True
        return False

    def _remembered(self, key: bytes) -> bool | None:
        answer, until = self._answers.get(key, (False, 0.0))
        return answer if until > trio.current_time() else None

    def _remember(self, key: bytes, answer: bool) -> None:
        self._answers[key] = answer, trio.current_time() + REMEMBERED
        if len(self._answers) > MOST:
            self._answers.popitem(last=False)


async def _reads(registry: Registry, blob_id: str, proof: str | None) -> bool:
    """Say whether the registry gives a blob's first byte to who shows *proof*, or to anybody."""
    try:
        digest = Digest(Algorithm.SHA256, bytes.fromhex(blob_id))
    except ValueError as exc:
        raise Malformed(f"no blob of a registry: {blob_id[:80]!r}") from exc
    request = replace(registry.blob(digest), headers=(("Range", "bytes=0-0"),))
    if proof is None:
        try:
            async with registry.ask(request, redirects=0) as response:
                return response.status < 400
        except ChunkstoreError:  # it wants a proof, and nobody has none
            return False
    return await _shown(registry, request, proof)


async def _shown(registry: Registry, request: Request, proof: str) -> bool:
    if not proof.isascii() or not proof.isprintable():
        return False
    asked = replace(request, authorization=proof)
    async with registry.client.request(asked, redirects=0) as response:
        return response.status < 400
