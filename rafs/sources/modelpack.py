"""ModelPack: models as OCI artifacts, their files as layers (CNCF ModelPack, model-spec).

A layer is one file as it is (``.raw``), or a tar of some. Tools before the specification had its
name wrote ``cnai`` for ``cncf.model``; ORAS says a file's name in its own annotation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from chunkstore import Buffer
from rafs.errors import BadSource
from rafs.tarformat import BLOCK, Member, Type
from rafs.tarwriter import END, TarWriter

from .documents import Descriptor, Manifest

ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
LAYER_TYPE = "application/vnd.cncf.model.{kind}.v1.raw"

FILEPATH, METADATA = "org.cncf.model.filepath", "org.cncf.model.file.metadata+json"
TITLE = "org.opencontainers.image.title"
_PATHS = (FILEPATH, "org.cnai.model.filepath", TITLE)
_METADATA = (METADATA, "org.cnai.model.file.metadata+json")

_MODEL = re.compile(r"application/vnd\.(?:cncf|cnai)\.model\.(?:manifest|config)\.v1\+json")
_LAYER = re.compile(
    r"application/vnd\.(?:cncf|cnai)\.model\."
    r"(?:weight|weight\.config|doc|code|dataset)\.v1\.(raw|tar|tar\+gzip|tar\+zstd)"
)


class _Facts(msgspec.Struct):
    """What a layer may say of its file; the rest is of no use to an image."""

    mode: int = 0o644
    uid: int = 0
    gid: int = 0


def is_model(manifest: Manifest) -> bool:
    """Say whether *manifest* is a model's."""
    return is_model_type(manifest.artifact_type or manifest.config.media_type)


def is_model_type(media_type: str) -> bool:
    """Say whether a manifest whose artifact or config has *media_type* is a model's."""
    return _MODEL.fullmatch(media_type) is not None


def is_raw(layer: Descriptor) -> bool:
    """Say whether a layer is one file as it is; raises BadSource for what is no layer."""
    return form(layer) == "raw"


def form(layer: Descriptor) -> str:
    """Return what a layer is: raw, tar, tar+gzip or tar+zstd; raises BadSource for no layer."""
    found = _LAYER.fullmatch(layer.media_type)
    if found is None:
        raise BadSource(f"layer {layer.digest}: cannot read {layer.media_type[:100]!r}")
    return found[1]


def path_of_layer(layer: Descriptor) -> str:
    """Return the path of a raw layer's file; raises BadSource."""
    for name in _PATHS:
        if path := layer.annotations.get(name):
            return path
    raise BadSource(f"layer {layer.digest} does not say what its file is called ({FILEPATH})")


def as_archive(layer: Descriptor, blocks: Iterable[Buffer]) -> Iterator[Buffer]:
    """Yield a raw layer as a tar of its one file."""
    header: list[Buffer] = []
    tar = TarWriter(header.append)
    facts, path = _facts(layer), path_of_layer(layer).encode()
    size, mode = layer.size, facts.mode & 0o7777
    owner = facts.uid, facts.gid
    tar.add(Member(path, Type.FILE, mode, *owner, size=size, stored=size))
    yield b"".join(header)
    yield from blocks
    yield bytes(-size % BLOCK) + END


def _facts(layer: Descriptor) -> _Facts:
    for name in _METADATA:
        if text := layer.annotations.get(name):
            try:
                return msgspec.json.decode(text, type=_Facts)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
                raise BadSource(f"layer {layer.digest}: {name}: {exc}") from exc
    return _Facts()
