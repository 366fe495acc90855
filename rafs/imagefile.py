"""image.json: what lies beside a bootstrap and names it, so that a damaged one is known as such."""

from __future__ import annotations

from typing import Any

import msgspec

from chunkstore import Digest, Malformed

from .errors import BadImage

VERSION = 1

MAX_SIZE = 16 << 20
"""Bytes of an image.json that anybody reads."""


class BootstrapFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bootstrap that an image.json speaks of."""

    digest: str
    """``sha256:HEX`` of the file."""
    size: int
    """Bytes."""


class BlobFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of an image's blobs."""

    id: str
    size: int
    """Bytes of its decoded address space."""
    stored_size: int
    """Bytes of its chunk data as stored."""
    chunks: int


class ImageFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole of it; fields that a later naiad adds are passed over."""

    version: int
    bootstrap: BootstrapFacts
    chunk_size: int
    blobs: tuple[BlobFacts, ...]
    config: dict[str, Any] | None = None
    """The OCI image config, where the source was a container image."""

    @property
    def digest(self) -> Digest:
        """What the bootstrap must hash to."""
        return Digest.parse(self.bootstrap.digest)

    def encode(self) -> bytes:
        """Return it as JSON for people, too."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> ImageFile:
        """Read an image.json; raises BadImage."""
        try:
            image = msgspec.json.decode(data, type=cls)
            Digest.parse(image.bootstrap.digest)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Malformed) as exc:
            raise BadImage(f"image.json: {exc}") from exc
        if image.version != VERSION:
            raise BadImage(f"image.json: version {image.version}; this naiad reads {VERSION}")
        return image
