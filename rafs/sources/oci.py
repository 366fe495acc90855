"""A container image as the source of an image: from an OCI layout, or whatever keeps content.

A model that is packed as an OCI artifact (`modelpack`) is read as an image whose layers are files.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Protocol

from chunkstore import Buffer
from rafs.chunking import unpacked_estimate
from rafs.errors import BadSource
from rafs.packer import Packer

from . import modelpack
from .archive import Archive
from .documents import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_DOCUMENT,
    REFERENCE,
    Descriptor,
    Manifest,
    Platform,
    decode_index,
    decode_manifest,
)
from .layer import Reading
from .source import Harvest, Json
from .streams import Stream, blocks_of, plain, read_ahead, verified

_MAX_NESTING = 4
"""Indexes inside indexes."""

_MAX_CONFIG = 16 << 20


class ContentStore(Protocol):
    """Where content can be had by digest: an OCI layout, a registry."""

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """Return a file that the content can be read from once, front to back.

        Nobody relies on what comes: it is checked. Raises OSError or ChunkstoreError.
        """
        ...


class OciLayout:
    """A directory with ``index.json`` and ``blobs/``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """Return the file that has the digest in its name."""
        return (self.folder / "blobs" / "sha256" / descriptor.checked.hex).open("rb")

    def resolve(self, tag: str | None) -> Descriptor:
        """Return what *tag* names; without one, the only image there is. Raises BadSource."""
        path = self.folder / "index.json"
        try:
            found = decode_index(path.read_bytes(), str(path)).manifests
        except OSError as exc:
            raise BadSource(f"{path}: {exc.strerror}") from exc
        named = {image.annotations.get(REFERENCE): image for image in found}
        if tag is None and len({image.digest for image in found}) == 1:
            return found[0]
        if tag is None or tag not in named:
            tags = ", ".join(sorted(filter(None, named))) or "none"
            raise BadSource(f"{self.folder}: which image? Its tags are: {tags}")
        return named[tag]


class OciSource:
    """The image that *image* describes, manifest or index, in *store*.

    Of an index the manifest for *platform* is taken; None is this machine's.
    """

    def __init__(
        self, store: ContentStore, image: Descriptor, platform: Platform | None = None
    ) -> None:
        self.place: Path | None = None
        self._store = store
        self._image = image
        self._platform = platform or Platform.here()
        self._layers: Sequence[Descriptor] = ()
        self._raw: Sequence[Descriptor] = ()
        """Layers that are one file as it is."""
        self._whiteouts = True
        self._config: Json | None = {}

    @classmethod
    def layout(cls, folder: Path, tag: str | None, platform: Platform | None = None) -> OciSource:
        """Return the image with *tag* in an OCI layout; raises BadSource."""
        store = OciLayout(folder)
        return cls(store, store.resolve(tag), platform)

    def prepare(self) -> int:
        """Read manifest and config, and return about how many bytes the layers hold."""
        manifest = self._manifest()
        self._layers = manifest.layers
        if modelpack.is_model(manifest):
            self._raw = [layer for layer in manifest.layers if modelpack.is_raw(layer)]
            self._config, self._whiteouts = None, False
        else:
            for layer in manifest.layers:
                _check_layer(layer)
            self._config = self._read_config(manifest.config)
        return sum(map(_estimate, manifest.layers))

    def read(self, packer: Packer) -> Harvest:
        """Pack what shows of the layers, from the top one down; raises BadSource."""
        reading = Reading(packer, self._whiteouts)
        for layer in reversed(self._layers):
            what = f"layer {layer.digest}"
            blocks = self._archived(layer, what)
            with closing(blocks), read_ahead(blocks) as ready:
                stream = Stream(ready, what)
                reading.add(Archive(stream))
                stream.drain()
        return Harvest(reading.tree(), list(reading.warnings), self._config)

    def _archived(self, layer: Descriptor, what: str) -> Generator[Buffer, None, None]:
        """Yield a layer as the archive that it is, or as one of a single file."""
        blocks = self._blocks(layer, what)
        if layer in self._raw:
            yield from modelpack.as_archive(layer, blocks)
        else:
            yield from plain(blocks, what)

    def _manifest(self) -> Manifest:
        image = self._image
        for _ in range(_MAX_NESTING):
            if image.media_type in MANIFEST_TYPES:
                return decode_manifest(self._document(image), f"manifest {image.digest}")
            if image.media_type not in INDEX_TYPES:
                raise BadSource(f"{image.digest} is no image: {image.media_type[:100]!r}")
            index = decode_index(self._document(image), f"index {image.digest}")
            image = _choose(index.manifests, self._platform)
        raise BadSource(f"{self._image.digest}: an index in an index, and so on")

    def _read_config(self, descriptor: Descriptor) -> Json:
        try:
            config = json.loads(self._document(descriptor, _MAX_CONFIG))
        except ValueError as exc:
            raise BadSource(f"config {descriptor.digest} is no JSON: {exc}") from exc
        if not isinstance(config, dict):
            raise BadSource(f"config {descriptor.digest} is no JSON object")
        return config

    def _document(self, descriptor: Descriptor, limit: int = MAX_DOCUMENT) -> bytes:
        if descriptor.size > limit:
            raise BadSource(f"{descriptor.digest}: {descriptor.size} bytes for a document")
        return b"".join(self._blocks(descriptor, descriptor.digest))

    def _blocks(self, descriptor: Descriptor, what: str) -> Iterator[bytes]:
        """Yield content, and raise BadSource in the end if it is not what it should be."""
        try:
            with closing(self._store.open(descriptor)) as file:
                yield from verified(blocks_of(file), descriptor.checked, descriptor.size, what)
        except OSError as exc:
            raise BadSource(f"{what}: {exc.strerror or exc}") from exc


def _choose(manifests: Sequence[Descriptor], wanted: Platform) -> Descriptor:
    """Return the manifest for a platform that is loaded whole; raises BadSource."""
    whole = [one for one in manifests if not one.is_lazy]
    for one in whole:
        if one.platform is not None and one.platform.suits(wanted):
            return one
    if len(whole) == 1 and whole[0].platform is None:
        return whole[0]
    if manifests and not whole:
        raise BadSource("this image is loaded lazily already")
    names = ", ".join(str(one.platform or "unnamed") for one in whole) or "none"
    raise BadSource(f"no image for {wanted}; its platforms are: {names}")


def _check_layer(layer: Descriptor) -> None:
    kind = layer.media_type
    if ".nydus." in kind or "containerd.io/snapshot/nydus-bootstrap" in layer.annotations:
        raise BadSource("this image is loaded lazily already")
    if "+encrypted" in kind or not (".layer." in kind or ".rootfs." in kind):
        raise BadSource(f"layer {layer.digest}: cannot read {kind[:100]!r}")


def _estimate(layer: Descriptor) -> int:
    packed = layer.media_type.endswith(("gzip", "zstd"))
    return unpacked_estimate(layer.size) if packed else layer.size
