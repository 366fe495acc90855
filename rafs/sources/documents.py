"""OCI documents: descriptors, indexes and manifests, decoded from what anybody may have written.

OCI image specification 1.1, "Content Descriptors", "Image Index", "Image Manifest"; Docker's
manifests of schema 2 have the same shape under other media types.
"""

from __future__ import annotations

import platform as machine

import msgspec

from chunkstore import Algorithm, Digest, Malformed
from rafs.errors import BadSource

MAX_DOCUMENT = 4 << 20
"""Bytes of a manifest or index; registries refuse larger ones."""

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
REFERENCE = "org.opencontainers.image.ref.name"
LAZY_FEATURE = "nydus.remoteimage.v1"
"""What the platform of a lazily loaded image is marked with."""

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i686": "386",
    "i386": "386",
    "loongarch64": "loong64",
}


class Platform(msgspec.Struct, frozen=True, omit_defaults=True, rename={"features": "os.features"}):
    """What a manifest's programs run on."""

    architecture: str
    os: str
    variant: str = ""
    features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``OS/ARCHITECTURE[/VARIANT]``; raises BadSource."""
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(parts):
            raise BadSource(f"not a platform: {text[:100]!r}; one is linux/amd64")
        return cls(os=parts[0], architecture=parts[1], variant=parts[2] if parts[2:] else "")

    @classmethod
    def here(cls) -> Platform:
        """Return what this machine runs."""
        name = machine.machine()
        return cls.parse(f"linux/{_ARCHITECTURES.get(name, name)}")

    def suits(self, wanted: Platform) -> bool:
        """Say whether it is the *wanted* one; a variant counts only where one is wanted."""
        return (self.os, self.architecture) == (wanted.os, wanted.architecture) and (
            not wanted.variant or self.variant == wanted.variant
        )


class Descriptor(
    msgspec.Struct, frozen=True, omit_defaults=True, rename={"media_type": "mediaType"}
):
    """Content by digest."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    platform: Platform | None = None

    @property
    def checked(self) -> Digest:
        """The digest, as a value; raises BadSource."""
        try:
            digest = Digest.parse(self.digest)
        except Malformed as exc:
            raise BadSource(f"a descriptor whose digest is none: {self.digest[:100]!r}") from exc
        if digest.algorithm is not Algorithm.SHA256 or self.size < 0:
            raise BadSource(f"a descriptor of {self.size} bytes by {digest.algorithm.value}")
        return digest

    @property
    def is_lazy(self) -> bool:
        """Say whether it belongs to an image that is loaded lazily already."""
        return LAZY_FEATURE in (self.platform.features if self.platform else ())


class Index(msgspec.Struct, frozen=True):
    """An image for several platforms, or an OCI layout's list of images."""

    manifests: tuple[Descriptor, ...]


class Manifest(
    msgspec.Struct, frozen=True, omit_defaults=True, rename={"artifact_type": "artifactType"}
):
    """An image for one platform, or an artifact that is laid out as one."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str = ""


def decode_index(data: bytes, what: str) -> Index:
    """Read an index; raises BadSource naming *what*."""
    try:
        return msgspec.json.decode(data, type=Index)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise BadSource(f"{what} is no index: {exc}") from exc


def decode_manifest(data: bytes, what: str) -> Manifest:
    """Read a manifest; raises BadSource naming *what*."""
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise BadSource(f"{what} is no manifest: {exc}") from exc
