"""Images as OCI keeps them: a manifest whose last layer is the bootstrap in a tar.

The layer says so by an annotation, as Nydus' tools and clients agree. Blobs are the other layers,
named by their digests. A layout on the disk and a registry differ only in how documents are had.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
import zlib
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO, Protocol

import trio

from chunkstore import Algorithm, Corrupt, Digest, Missing, SizedOrigin
from chunkstore.origins.directory import DirectoryOrigin
from chunkstore.origins.images import Images
from chunkstore.origins.manifest import (
    MANIFEST_LIMIT,
    NYDUS_FEATURE,
    OCI_INDEX,
    Descriptor,
    Document,
    Index,
    Manifest,
    Platform,
)
from chunkstore.origins.registry import Registry
from chunkstore.origins.registryorigin import RegistryOrigin
from chunkstore.origins.wholesorigin import WholesOrigin
from rafs import BadImage, Bootstrap, Unsupported, unhashed
from rafs.toc import MAX_BOOTSTRAP

from .models import Files, is_model, layers, unread
from .places import Promise, read_range

BOOTSTRAP_ANNOTATION = "containerd.io/snapshot/nydus-bootstrap"
REF_NAME = "org.opencontainers.image.ref.name"
NAMES = ("image/image.boot", "image.boot")
_MEMBERS = 16
"""Entries of a bootstrap layer that are looked at; Nydus writes two."""

_STEP = 1 << 20


class Store(Protocol):
    """Where an image's manifest and layers are had."""

    async def manifest(self) -> Manifest:
        """Return the image's manifest for this machine, the lazy one where there are two."""
        ...

    async def layer(self, layer: Descriptor, out: BinaryIO) -> None:
        """Write a layer to *out*, verified."""
        ...


class Layers:
    """The place of an image in a layout or a registry."""

    within = ""

    def __init__(self, store: Store, origin: SizedOrigin, where: str = "") -> None:
        """Be an image in *where*, which a model artifact's image says it is from."""
        self.origin = origin
        self._store = store
        self._where = where
        self._layer: Descriptor | None = None
        self._model: Manifest | None = None

    async def promise(self) -> Promise:
        """Read the manifest; its last layer's digest stands for the bootstrap."""
        found = await self._store.manifest()
        if is_model(found):
            self._model = found
            told = "\n".join(map(str, (self._where, *layers(found))))
            return Promise(packed=Digest.of(told.encode(), Algorithm.SHA256))
        self._layer = bootstrap_layer(found)
        return Promise(packed=self._layer.digest)

    async def fetch(self, out: BinaryIO) -> None:
        """Fetch the bootstrap's layer and take the bootstrap out of it, or make it of a model."""
        if self._model is not None:
            read = partial(read_range, self.origin)
            files = await trio.to_thread.run_sync(unread, self._model, read)
            await trio.to_thread.run_sync(unhashed.encode, self._where, files, out)
            return
        layer = self._layer or bootstrap_layer(await self._store.manifest())
        if layer.size > MAX_BOOTSTRAP:
            raise BadImage(f"bootstrap layer {layer.digest}: {layer.size} bytes")
        with tempfile.TemporaryFile() as packed:
            await self._store.layer(layer, packed)
            packed.seek(0)
            await trio.to_thread.run_sync(unpack_bootstrap, packed, out)

    @property
    def is_unhashed(self) -> bool:
        """Whether it is a model artifact, of which there are only digests of whole files."""
        return self._model is not None

    def files(self, image: Bootstrap) -> Files:
        """Return what *image*, which was made here of a model artifact, is read from."""
        known = unhashed.wholes(image)
        named = WholesOrigin(self.origin, known, lambda whole: whole.checksum.raw.hex())
        return Files("", known, named)


class Layout:
    """An OCI layout on a disk."""

    def __init__(self, path: Path, tag: str | None) -> None:
        self._path = path
        self._tag = tag

    async def manifest(self) -> Manifest:
        """Return what index.json lists under the tag."""
        found = self._top()
        for _ in range(2):
            if isinstance(found, Manifest):
                return found
            found = self._document(found.choose(machine(), feature=NYDUS_FEATURE).digest)
        raise Corrupt(f"{self._path}: an index within an index")

    def _top(self) -> Manifest | Index:
        index = Document(OCI_INDEX, _read(self._path / "index.json")).decode()
        named = (
            [entry for entry in index.manifests if self._is_meant(entry)]
            if isinstance(index, Index)
            else []
        )
        if not named:
            raise Missing(f"{self._path}: no image {self._tag or ''}".rstrip())
        if len({entry.digest for entry in named}) > 1 and self._tag is None:
            tags = sorted(entry.annotation(REF_NAME) or str(entry.digest) for entry in named)
            raise Missing(f"{self._path}: name one of {', '.join(tags[:20])}")
        return self._document(named[-1].digest)

    def _is_meant(self, entry: Descriptor) -> bool:
        return self._tag is None or entry.annotation(REF_NAME) == self._tag

    def _document(self, digest: Digest) -> Manifest | Index:
        data = _read(self._blob(digest))
        if not digest.matches(data):
            raise Corrupt(f"{self._blob(digest)}: does not match its name")
        return Document("", data).decode()

    async def layer(self, layer: Descriptor, out: BinaryIO) -> None:
        """Copy a layer."""
        data = await trio.to_thread.run_sync(_read, self._blob(layer.digest), layer.size)
        if not layer.digest.matches(data):
            raise Corrupt(f"{self._blob(layer.digest)}: does not match its name")
        out.write(data)

    def _blob(self, digest: Digest) -> Path:
        return self._path / "blobs" / digest.algorithm.value / digest.hex


def in_layout(path: Path, tag: str | None) -> Layers:
    """Return the place of the image *tag* in the layout at *path*."""
    blobs = DirectoryOrigin(path / "blobs", folder=Algorithm.SHA256.value)
    return Layers(Layout(path, tag), blobs, f"oci:{path.absolute()}")


class Repository:
    """The repository of a registry that a reference names."""

    def __init__(self, registry: Registry) -> None:
        self._images = Images(registry)

    async def manifest(self) -> Manifest:
        """Ask the registry."""
        return (await self._images.find(machine(), feature=NYDUS_FEATURE)).manifest

    async def layer(self, layer: Descriptor, out: BinaryIO) -> None:
        """Download a layer."""
        async with self._images.download(layer) as download:
            await download.copy(out)


def in_registry(registry: Registry) -> Layers:
    """Return the place of the image that *registry*'s reference names."""
    named = registry.reference
    where = f"{named.server}/{named.repository}"
    return Layers(Repository(registry), RegistryOrigin(registry), where)


def machine() -> Platform:
    """Return what images must be for."""
    return Platform.of(os.uname().machine)


def bootstrap_layer(found: Manifest) -> Descriptor:
    """Return the layer with the bootstrap; raises Unsupported for an ordinary container image."""
    for layer in reversed(found.layers):
        if layer.annotation(BOOTSTRAP_ANNOTATION) == "true":
            return layer
    raise Unsupported("an ordinary container image; naiad build makes a lazy one of it")


def unpack_bootstrap(packed: IO[bytes], out: BinaryIO) -> None:
    """Write the bootstrap in the tar *packed* to *out*; raises BadImage."""
    try:
        with tarfile.open(fileobj=packed, mode="r|*", bufsize=_STEP) as tar:
            for _ in range(_MEMBERS):
                member = tar.next()
                if member is None:
                    break
                if member.size > MAX_BOOTSTRAP:
                    raise BadImage(f"bootstrap layer: {member.name} has {member.size} bytes")
                if member.isfile() and member.name.removeprefix("./") in NAMES:
                    file = tar.extractfile(member)
                    while file and (data := file.read(_STEP)):
                        out.write(data)
                    return
    except (tarfile.TarError, zlib.error, EOFError, OSError) as exc:
        raise BadImage(f"bootstrap layer: {exc}") from exc
    raise BadImage("bootstrap layer: no image/image.boot in it")


def _read(path: Path, limit: int = MANIFEST_LIMIT) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError as exc:
        raise Missing(f"{path}: not there") from exc
    if len(data) > limit:
        raise Corrupt(f"{path}: more than {limit} bytes")
    return data
