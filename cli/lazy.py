"""Where the snapshotter looks images up: their registries, and the kept bootstraps."""

from __future__ import annotations

import gzip
import hashlib
import io
import tempfile
import zlib
from collections.abc import Callable
from contextlib import closing
from typing import BinaryIO, Protocol

import msgspec
import trio
import zstandard

from chunkstore import Algorithm, Buffer, Corrupt, Digest
from chunkstore.http import Client
from chunkstore.origins.credentials import Credential
from chunkstore.origins.images import Images
from chunkstore.origins.manifest import NYDUS_FEATURE, Descriptor
from chunkstore.origins.reference import Reference
from fusefs.containers.plan import Plan
from rafs import BadImage
from rafs.toc import MAX_BOOTSTRAP

from .bootstraps import Bootstraps
from .driver import choose
from .obtaining import kept_in
from .oci import machine, unpack_bootstrap
from .registries import Proof, registry
from .setup import Registries, Setup

MAX_CONFIG = 16 << 20
"""Bytes."""

_LONGEST_TAR = MAX_BOOTSTRAP + (1 << 20)
"""Bytes of a bootstrap's layer when unpacked."""

_PART = 1 << 20


class _RootFs(msgspec.Struct):
    diff_ids: list[str]


class _Config(msgspec.Struct):
    rootfs: _RootFs


class RegistrySources:
    """Images of all registries, looked up with *client*."""

    def __init__(self, client: Client, setup: Setup, registries: Registries) -> None:
        self._client = client
        self._setup = setup
        self._registries = registries

    async def plan(
        self, reference: Reference, manifest: Digest | None, credential: Credential | None
    ) -> Plan:
        """Read manifest and config."""
        images = self._images(reference, credential)
        name = str(manifest) if manifest else None
        found = await images.find(machine(), feature=NYDUS_FEATURE, name=name)
        data = await images.content(found.manifest.config, MAX_CONFIG)
        return Plan(reference, found.digest, found.manifest.layers, diff_ids(data, reference))

    async def bootstrap(self, plan: Plan, credential: Credential | None) -> Digest:
        """Fetch the bootstrap's layer, unless the cache has the bootstrap that came in it."""
        layer, diff_id = plan.layers[-1], plan.diff_ids[-1]
        kept = kept_in(self._setup)
        try:
            known = kept.packed_as(_proven(layer, diff_id))
            if known is not None and kept.find(known) is not None:
                return known
            if layer.size > MAX_BOOTSTRAP:
                raise BadImage(f"bootstrap layer {layer.digest}: {layer.size} bytes")
            images = self._images(plan.reference, credential)
            with tempfile.TemporaryFile() as packed:
                async with images.download(layer) as download:
                    await download.copy(packed)
                packed.seek(0)
                return await trio.to_thread.run_sync(_keep, kept, packed, layer, diff_id)
        finally:
            kept.close()

    async def check(self, bootstrap: Digest) -> None:
        """Look for faults now, while containerd is busy, so that mounting need not."""
        with closing(kept_in(self._setup)) as kept:
            found = await trio.to_thread.run_sync(kept.find, bootstrap)
            if found is not None:
                with closing(found):
                    await choose("auto", found, bootstrap, kept)

    def _images(self, reference: Reference, credential: Credential | None) -> Images:
        proof = Proof(credential, self._registries)
        return Images(registry(reference, self._client, self._registries, proof))


def diff_ids(config: bytes, reference: Reference) -> list[str]:
    """Return the digests of the unpacked layers; raises Corrupt."""
    try:
        return msgspec.json.decode(config, type=_Config).rootfs.diff_ids
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise Corrupt(f"{reference}: its config names no layers: {exc}") from exc


def _proven(layer: Descriptor, diff_id: str) -> Digest:
    """Return the name that a bootstrap is remembered by once its layer was proven."""
    return Digest.of(f"{layer.digest} is {diff_id}".encode(), Algorithm.SHA256)


def _keep(kept: Bootstraps, packed: BinaryIO, layer: Descriptor, diff_id: str) -> Digest:
    hashed = hashlib.sha256()
    with kept.arriving() as (file, path):
        tar = _Tee(_plain(packed), hashed.update)
        unpack_bootstrap(io.BufferedReader(tar, _PART), file)
        try:
            tar.drain()
        except (zlib.error, zstandard.ZstdError, EOFError, OSError) as exc:
            raise BadImage(f"bootstrap layer {layer.digest}: {exc}") from exc
        if f"sha256:{hashed.hexdigest()}" != diff_id:
            raise Corrupt(
                f"bootstrap layer {layer.digest} is sha256:{hashed.hexdigest()} when unpacked, "
                f"and its config says {diff_id}"
            )
        file.flush()
        digest = kept.keep(path, None)
    kept.remember(_proven(layer, diff_id), digest)
    return digest


def _plain(packed: BinaryIO) -> _Stream:
    """Return what unpacks a layer's file, by its first bytes."""
    magic = packed.read(4)
    packed.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(packed)
    if magic == b"\x28\xb5\x2f\xfd":
        return zstandard.ZstdDecompressor().stream_reader(packed)
    return packed


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Tee(io.RawIOBase):
    """A stream that tells what was read of it."""

    def __init__(self, stream: _Stream, told: Callable[[Buffer], object]) -> None:
        self._stream = stream
        self._told = told
        self._count = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, into: Buffer) -> int:  # type: ignore[override]  # typeshed: wider
        """Read, and raise BadImage where there is too much."""
        view = memoryview(into).cast("B")
        data = self._stream.read(len(view))
        self._count += len(data)
        if self._count > _LONGEST_TAR:
            raise BadImage(f"bootstrap layer: more than {_LONGEST_TAR} bytes when unpacked")
        view[: len(data)] = data
        self._told(data)
        return len(data)

    def drain(self) -> None:
        """Read the rest."""
        part = bytearray(_PART)
        while self.readinto(part):
            pass
