"""Manifest and Index: what a registry says an image is made of.

OCI image-spec 1.1, and the Docker formats that it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from chunkstore.digest import Algorithm, Digest
from chunkstore.errors import Corrupt, Missing

T = TypeVar("T")

MANIFEST_LIMIT = 4 << 20
"""Bytes; the specification has registries take 4 MiB."""

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

ACCEPTED = ", ".join((OCI_MANIFEST, OCI_INDEX, _DOCKER_MANIFEST, _DOCKER_INDEX))
"""What is read here, as ``Accept`` says it."""

NYDUS_FEATURE = "nydus.remoteimage.v1"
"""The ``os.features`` entry by which an index tells a lazy image from the ordinary one."""

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
}
"""The kernel's names of machines in the words of Go, which registries use; others are the same."""


class Platform(msgspec.Struct, frozen=True):
    """What an image runs on."""

    architecture: str
    os: str
    variant: str = ""
    features: list[str] = msgspec.field(name="os.features", default_factory=list)

    @classmethod
    def of(cls, machine: str) -> Platform:
        """Return Linux on *machine*, as ``uname -m`` calls it."""
        architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
        return cls(architecture, "linux", variant)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``OS/ARCHITECTURE[/VARIANT]``; raises ValueError."""
        system, architecture, *variant = text.split("/")
        return cls(architecture, system, "/".join(variant))

    def fits(self, wanted: Platform) -> bool:
        """Say whether an image for this runs on *wanted*."""
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return False
        return not (self.variant and wanted.variant) or self.variant == wanted.variant

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """A blob or manifest, by what it hashes to."""

    media_type: str
    digest_text: str = msgspec.field(name="digest")
    size: int
    annotations: dict[str, str] | None = None
    platform: Platform | None = None

    def __post_init__(self) -> None:
        _ = self.digest

    @property
    def digest(self) -> Digest:
        """What it hashes to."""
        return Digest.parse(self.digest_text)

    def annotation(self, name: str) -> str | None:
        """Return the annotation *name*, if it is there."""
        return (self.annotations or {}).get(name)


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """One image: its configuration and its layers, the lowest first."""

    schema_version: int
    config: Descriptor
    layers: list[Descriptor]
    media_type: str = OCI_MANIFEST
    artifact_type: str = ""
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True, rename="camel"):
    """Several images under one name."""

    schema_version: int
    manifests: list[Descriptor]
    media_type: str = OCI_INDEX
    annotations: dict[str, str] | None = None

    def choose(self, wanted: Platform, *, feature: str | None = None) -> Descriptor:
        """Return the manifest for *wanted*, if there are two then the one with *feature*.

        Without *feature*, one that asks for no feature is preferred. Raises Missing.
        """
        fitting = [entry for entry in self.manifests if entry.platform and _fits(entry, wanted)]
        if not fitting and len(self.manifests) == 1 and self.manifests[0].platform is None:
            fitting = self.manifests
        if not fitting:
            raise Missing(f"no image for {wanted}; there is one for {_platforms(self.manifests)}")
        return max(fitting, key=lambda entry: _rank(entry, feature))


class _Kind(msgspec.Struct, rename="camel"):
    media_type: str = ""
    manifests: list[msgspec.Raw] | None = None
    layers: list[msgspec.Raw] | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index as its bytes, which its digest is of."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> Digest:
        """Its SHA-256."""
        return Digest.of(self.data, Algorithm.SHA256)

    def decode(self) -> Manifest | Index:
        """Read it; raises Corrupt.

        What it is shows in what it holds: a document that could be read as both is refused
        (CVE-2021-41190).
        """
        kind = _decoded(self.data, _Kind)
        is_index = kind.manifests is not None
        if is_index == (kind.layers is not None):
            raise Corrupt("neither an image manifest nor an index, or both")
        said = kind.media_type or self.media_type
        if said in (OCI_INDEX, _DOCKER_INDEX) and not is_index:
            raise Corrupt("says it is an index, and holds layers")
        if said in (OCI_MANIFEST, _DOCKER_MANIFEST) and is_index:
            raise Corrupt("says it is an image manifest, and holds manifests")
        return _decoded(self.data, Index) if is_index else _decoded(self.data, Manifest)


def _decoded(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise Corrupt(f"not a manifest: {exc}") from exc


def _fits(entry: Descriptor, wanted: Platform) -> bool:
    return entry.platform is not None and entry.platform.fits(wanted)


def _rank(entry: Descriptor, feature: str | None) -> tuple[bool, bool]:
    features = entry.platform.features if entry.platform else []
    return (feature in features if feature else not features, NYDUS_FEATURE not in features)


def _platforms(entries: Sequence[Descriptor]) -> str:
    return ", ".join(str(entry.platform) for entry in entries[:20] if entry.platform) or "none"
