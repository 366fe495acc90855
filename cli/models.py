"""Images made of listings, whose chunks have no digests: what they are read from.

A hub tells its files with their checksums; so does the manifest of a model artifact, where every
file that is a layer as it is (``.raw``) has the layer's digest.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chunkstore import Origin
from chunkstore.checksum import Checksum, Kind
from chunkstore.origins.manifest import Manifest
from chunkstore.whole import Whole
from rafs import Unsupported
from rafs.sources import modelpack
from rafs.sources.documents import Descriptor
from rafs.unhashed import Unread

FUSE_ALONE = "only FUSE can drop what turns out to be wrong"
"""Why such an image is not shown by the kernel's EROFS."""


class Unhashed(enum.Enum):
    """What of an image whose chunks have no digests."""

    REFUSED = enum.auto()
    ALLOWED = enum.auto()
    KNOWN = enum.auto()
    """It is one: it was found out when it was opened before."""


@dataclass(frozen=True, slots=True)
class Files:
    """What an image of whole files is read from."""

    commit: str
    """Which commit of a hub's repository; empty where there is no such thing."""
    wholes: Mapping[str, Sequence[Whole]]
    """By blob."""
    origin: Origin


def without_digests(name: str) -> Unsupported:
    """Return the error for who needs digests of chunks."""
    return Unsupported(
        f"{name}: its chunks have no digests: mount it, or let naiad build make an image of it"
    )


def is_model(manifest: Manifest) -> bool:
    """Say whether *manifest* is a model artifact's."""
    return modelpack.is_model_type(manifest.artifact_type or manifest.config.media_type)


def unread(manifest: Manifest) -> Sequence[Unread]:
    """Return the files of a model artifact; raises BadSource, Unsupported where some are packed."""
    found = []
    for entry in manifest.layers:
        digest, facts = entry.digest, dict(entry.annotations or {})
        layer = Descriptor(entry.media_type, str(digest), entry.size, facts)
        if not modelpack.is_raw(layer):
            raise Unsupported(
                f"layer {digest}: a tar has no files to be read by themselves: "
                "let naiad build make an image of it"
            )
        checksum = Checksum(Kind(digest.algorithm.value), digest.raw)
        found.append(Unread(modelpack.path_of_layer(layer), entry.size, checksum))
    return found
