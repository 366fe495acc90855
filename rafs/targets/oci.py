"""An OCI image as a target: layers, config, manifest and index, as Nydus clients look for them.

``OciTarget`` makes the pieces and puts them on a ``Shelf``, in an order in which each refers only
to what is there already; the name comes last. An OCI layout is a shelf, and so is a registry.

What the pieces are called was settled by Nydus: its snapshotter knows a lazily loaded image by the
annotations. The platform feature that marks a lazy image beside an ordinary one in an index is left
out where there is no other: containerd 2 passes over what asks for a feature that it does not have.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from chunkstore import Algorithm, Buffer, Digest, Malformed
from rafs.errors import BadSource
from rafs.sources.documents import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Index,
    Manifest,
    Platform,
)
from rafs.tarformat import Member, Type
from rafs.tarwriter import TarWriter

from .draft import Draft, Json, Piece

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
BLOB_TYPE = "application/vnd.oci.image.layer.nydus.blob.v1"
BOOTSTRAP_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

BLOB_ANNOTATIONS = {"containerd.io/snapshot/nydus-blob": "true"}
BOOTSTRAP_ANNOTATIONS = {
    "containerd.io/snapshot/nydus-bootstrap": "true",
    "containerd.io/snapshot/nydus-fs-version": "6",
}

BOOTSTRAP_NAME = "image/image.boot"

_COPY = 1 << 20
_GZIP_LEVEL = 6


class Shelf(Protocol):
    """What takes OCI content, and names it."""

    def size(self, digest: Digest) -> int | None:
        """Return the bytes of what is there by that digest; None: nothing is."""
        ...

    def put(self, descriptor: Descriptor, path: Path) -> None:
        """Take the file at *path*, which may be moved away, as what *descriptor* describes."""
        ...

    def name(self, descriptor: Descriptor) -> None:
        """Give what was put last the name that it is to be known by."""
        ...


class OciTarget:
    """The image goes to *shelf*; *place* is a folder to work in.

    *platform* is what the programs in it run on, where the source does not say; None: this
    machine's.
    """

    def __init__(self, shelf: Shelf, place: Path, platform: Platform | None = None) -> None:
        self.place = place
        self._shelf = shelf
        self._platform = platform

    def publish(self, draft: Draft) -> list[str]:
        """Put layers, config, manifest and index, then name the index; raises BadSource."""
        layers = [*self._blobs(draft), self._bootstrap(draft)]
        config = self._config(draft, layers)
        platform = _platform(config)
        descriptor = self._put_json(draft.folder / "config", config, CONFIG_TYPE)
        manifest = Manifest(config=descriptor, layers=tuple(layer for layer, _ in layers))
        described = self._put_json(draft.folder / "manifest", manifest, MANIFEST_TYPES[0])
        index = Index(manifests=(msgspec.structs.replace(described, platform=platform),))
        self._shelf.name(self._put_json(draft.folder / "index", index, INDEX_TYPES[0]))
        return []

    def _blobs(self, draft: Draft) -> Iterator[tuple[Descriptor, str]]:
        """Yield each blob with its diff id, which is its digest: nothing is to be unpacked."""
        for entry in draft.entries:
            digest = _digest_of(entry.blob.id)
            own = draft.blob if draft.blob is not None and draft.blob.digest == digest else None
            size = own.size if own else self._shelf.size(digest)
            if size is None:
                raise BadSource(f"blob {entry.blob.id} of the chunk dict is not at the target")
            blob = Descriptor(BLOB_TYPE, str(digest), size, annotations=BLOB_ANNOTATIONS)
            if own:
                self._shelf.put(blob, own.path)
            yield blob, blob.digest

    def _bootstrap(self, draft: Draft) -> tuple[Descriptor, str]:
        hashed = hashlib.sha256()
        piece = Piece.write(
            draft.folder / "bootstrap.tar.gz",
            lambda file: _write_layer(draft.bootstrap, file, hashed.update),
        )
        layer = Descriptor(
            BOOTSTRAP_TYPE, str(piece.digest), piece.size, annotations=BOOTSTRAP_ANNOTATIONS
        )
        self._shelf.put(layer, piece.path)
        return layer, f"sha256:{hashed.hexdigest()}"

    def _config(self, draft: Draft, layers: Sequence[tuple[Descriptor, str]]) -> Json:
        """Return the source's config with the new layers, or a plain one."""
        config: Json = dict(draft.config or {})
        if draft.config is None:
            platform = self._platform or Platform.here()
            config.update(architecture=platform.architecture, os=platform.os, config={})
            if platform.variant:
                config["variant"] = platform.variant
        history = config.get("history")
        passed = history if isinstance(history, list) else []
        config["rootfs"] = {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]}
        config["history"] = [
            *({**entry, "empty_layer": True} for entry in passed if isinstance(entry, dict)),
            *({"created_by": "naiad build", "comment": layer.media_type} for layer, _ in layers),
        ]
        return config

    def _put_json(self, path: Path, value: object, media_type: str) -> Descriptor:
        if isinstance(value, Manifest | Index):
            value = {"schemaVersion": 2, "mediaType": media_type, **msgspec.to_builtins(value)}
        data = msgspec.json.encode(value)
        piece = Piece.write(path, lambda file: file.write(data))
        descriptor = Descriptor(media_type, str(piece.digest), piece.size)
        self._shelf.put(descriptor, piece.path)
        return descriptor


def _digest_of(blob_id: str) -> Digest:
    try:
        return Digest.parse(f"{Algorithm.SHA256.value}:{blob_id}")
    except Malformed as exc:
        raise BadSource(f"blob {blob_id} of the chunk dict is not named by its digest") from exc


def _platform(config: Json) -> Platform:
    try:
        return msgspec.convert(
            {key: config[key] for key in ("architecture", "os", "variant") if key in config},
            Platform,
        )
    except msgspec.ValidationError as exc:
        raise BadSource(f"the image's config names no platform: {exc}") from exc


def _write_layer(bootstrap: Piece, file: BinaryIO, hashed: Callable[[Buffer], object]) -> None:
    """Write the bootstrap as a gzipped tar without a time or a name in it."""
    with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:

        def write(data: Buffer) -> None:
            packed.write(data)
            hashed(data)

        folder, _, _ = BOOTSTRAP_NAME.partition("/")
        name, size = BOOTSTRAP_NAME.encode(), bootstrap.size
        tar = TarWriter(write)
        tar.add(Member(f"{folder}/".encode(), Type.DIRECTORY, mode=0o755))
        tar.add(Member(name, Type.FILE, mode=0o444, size=size, stored=size))
        with bootstrap.path.open("rb") as source:
            while part := source.read(_COPY):
                tar.write(part)
        tar.close()
