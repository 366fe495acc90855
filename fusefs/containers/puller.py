"""Puller: an image into containerd, with the labels that have it loaded lazily.

containerd's own client passes such labels only since 2.0; it does what is done here: documents into
the content store, a snapshot per layer, a name for the image. Layers that the snapshotter lends are
not fetched; others are fetched and unpacked by containerd.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from chunkstore import Digest
from chunkstore.origins.manifest import Descriptor as Layer
from chunkstore.origins.manifest import Document
from fusefs.containerd.client import Client, ContainerdError
from fusefs.containerd.messages import Descriptor, Image, Mount
from fusefs.errors import MountFailed

from .lazyimages import MANIFEST, REFERENCES, SECRET, USER
from .plan import Plan
from .snapshotter import TARGET

logger = logging.getLogger(__name__)

_INHERITED = "containerd.io/snapshot/"
"""What annotations begin with that become labels of a layer's snapshot."""

_LEASE = 24 * 3600.0
"""Seconds after which containerd may collect what a pull that was killed has left."""

_PART = 1 << 20

_DOCUMENTS = 3
"""Index, manifest and config, at once."""

_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """An image's documents and where its layers come from."""

    name: str
    """What it is to be called."""
    top: Document
    """What the name stands for: the manifest, or the index that it is in."""
    manifest: Document
    config: Layer
    config_data: bytes
    plan: Plan
    open: Callable[[Digest], BinaryIO]
    """Opens a layer, from a worker thread."""


class Puller:
    """One pull: `begin`, `pull` and `end`, each in a worker thread.

    Whoever pulls has the image looked up while it begins, which takes as long.
    """

    def __init__(self, address: Path, namespace: str, snapshotter: str) -> None:
        """Pull into the containerd at *address*, whose name for the snapshotter is *snapshotter*.

        *namespace* is containerd's.
        """
        self._address, self._namespace = address, namespace
        self._snapshotter = snapshotter
        self._client: Client | None = None
        self._lease = ""

    def begin(self) -> None:
        """Connect, and have kept what comes; raises ContainerdError."""
        self._client = Client(self._address, self._namespace)
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + _LEASE))
        lease = f"naiad-pull-{secrets.token_hex(8)}"
        self._client.lease(lease, expires)
        self._lease = lease

    def end(self, *, well: bool) -> None:
        """Let go; what a pull that did not end *well* has made is collected at once."""
        if self._client is None:
            return
        try:
            if self._lease:
                self._client.end_lease(self._lease, collect=not well)
        except ContainerdError as exc:
            logger.warning("a lease stays for a day lease=%s: %s", self._lease, exc)
        finally:
            self._client.close()

    def pull(self, pulled: Pulled, report: Callable[[str], None]) -> None:
        """Do it, saying how it goes.

        Raises ContainerdError, MountFailed, and what reading a layer does.
        """
        client = self._client
        assert client is not None, "it has begun"
        with ThreadPoolExecutor(_DOCUMENTS) as beside:
            # containerd brings each to the disk, which takes as long as everything else.
            documents = [beside.submit(put) for put in self._documents(client, pulled)]
            for index in range(len(pulled.plan.layers)):
                self._put_layer(client, pulled, index, report)
            for document in documents:
                document.result()
            client.put_image(Image(pulled.name, target=_described(pulled.top)))

    def _documents(self, client: Client, pulled: Pulled) -> Iterator[Callable[[], None]]:
        """Yield what stores each document, labelled with what containerd must keep for it."""
        plan, reference = pulled.plan, pulled.plan.reference
        source = {f"containerd.io/distribution.source.{reference.host}": reference.repository}
        kept = {
            f"containerd.io/gc.ref.snapshot.{self._snapshotter}": plan.chain(len(plan.layers) - 1)
        }
        config = Descriptor(pulled.config.media_type, str(pulled.config.digest), pulled.config.size)
        yield partial(client.put_content, config, [pulled.config_data], kept | source)
        below = {"containerd.io/gc.ref.content.config": config.digest} | {
            f"containerd.io/gc.ref.content.l.{number}": str(layer.digest)
            for number, layer in enumerate(plan.layers)
        }
        manifest = pulled.manifest
        yield partial(client.put_content, _described(manifest), [manifest.data], below | source)
        if pulled.top != manifest:
            below = {"containerd.io/gc.ref.content.m.0": str(manifest.digest)}
            top = pulled.top
            yield partial(client.put_content, _described(top), [top.data], below | source)

    def _put_layer(
        self, client: Client, pulled: Pulled, index: int, report: Callable[[str], None]
    ) -> None:
        plan = pulled.plan
        layer, chain = plan.layers[index], plan.chain(index)
        parent = plan.chain(index - 1) if index else ""
        labels = _labels(pulled, layer, chain)
        key = f"extract-{time.time_ns()}-{secrets.token_hex(4)} {chain}"
        what = f"layer {index + 1} of {len(plan.layers)}"
        try:
            mounts = self._prepare(client, key, parent, labels)
        except ContainerdError as exc:
            if not exc.exists_already:
                raise
            report(f"{what}: nothing to fetch")
            return
        try:
            report(f"{what}: {layer.size} bytes to fetch and unpack")
            described = Descriptor(layer.media_type, str(layer.digest), layer.size)
            client.put_content(described, _parts(pulled.open, layer.digest), {})
            found = client.apply(described, mounts)
            if found != plan.diff_ids[index]:
                raise MountFailed(f"layer {layer.digest} is {found}, not {plan.diff_ids[index]}")
            client.commit(self._snapshotter, key, chain, {TARGET: chain})
        except BaseException as exc:
            if not (isinstance(exc, ContainerdError) and exc.exists_already):
                client.remove(self._snapshotter, key)
                raise

    def _prepare(
        self, client: Client, key: str, parent: str, labels: Mapping[str, str]
    ) -> tuple[Mount, ...]:
        """Prepare a snapshot, once more if need be: we have just been started, or registries nod.

        containerd's own connection to a snapshotter that was away comes back after seconds.
        """
        for pause in _PAUSES:
            try:
                return client.prepare(self._snapshotter, key, parent, labels)
            except ContainerdError as exc:
                if not exc.is_passing:
                    raise
                time.sleep(pause)
        return client.prepare(self._snapshotter, key, parent, labels)


def _labels(pulled: Pulled, layer: Layer, chain: str) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in (layer.annotations or {}).items()
        if name.startswith(_INHERITED) and name not in (USER, SECRET)
    }
    return inherited | {
        TARGET: chain,
        REFERENCES[0]: str(pulled.plan.reference),
        MANIFEST: str(pulled.manifest.digest),
        "containerd.io/snapshot/cri.layer-digest": str(layer.digest),
    }


def _described(document: Document) -> Descriptor:
    return Descriptor(document.media_type, str(document.digest), len(document.data))


def _parts(open_layer: Callable[[Digest], BinaryIO], digest: Digest) -> Iterator[bytes]:
    with open_layer(digest) as file:
        while part := file.read(_PART):
            yield part
