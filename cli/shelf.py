"""RegistryShelf: a repository of a registry as what takes a built image."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio

from chunkstore import Digest, Missing
from chunkstore.origins.push import Push
from chunkstore.origins.registry import Registry
from chunkstore.origins.registryorigin import RegistryOrigin
from rafs.sources.documents import INDEX_TYPES, MANIFEST_TYPES, Descriptor

_DOCUMENTS = {*INDEX_TYPES, *MANIFEST_TYPES}


class RegistryShelf:
    """Puts content into the repository that *registry*'s reference names, from another thread."""

    def __init__(self, registry: Registry, token: trio.lowlevel.TrioToken) -> None:
        self._push = Push(registry)
        self._blobs = RegistryOrigin(registry)
        self._run = partial(trio.from_thread.run, trio_token=token)
        self._last = b""
        """The document that was put last."""

    def size(self, digest: Digest) -> int | None:
        """Return the bytes of a blob; None where there is none."""
        try:
            return self._run(self._blobs.size, digest.hex)
        except Missing:
            return None

    def put(self, descriptor: Descriptor, path: Path) -> None:
        """Push a blob, or a manifest or index under its digest."""
        if descriptor.media_type not in _DOCUMENTS:
            self._run(self._push.blob, descriptor.checked, path)
            return
        self._last = path.read_bytes()
        self._run(self._push.manifest, self._last, descriptor.media_type, descriptor.digest)

    def name(self, descriptor: Descriptor) -> None:
        """Push what was put last under the reference's own name."""
        self._run(self._push.manifest, self._last, descriptor.media_type)
