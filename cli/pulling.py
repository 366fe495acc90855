"""What ``naiad pull`` asks of the snapshotter, wired: the registry and containerd."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio

from chunkstore import Corrupt, Malformed
from chunkstore.http import Client
from chunkstore.origins.contents import Contents
from chunkstore.origins.credentials import Credential
from chunkstore.origins.images import Images
from chunkstore.origins.manifest import NYDUS_FEATURE, Document, Index, Manifest, Platform
from chunkstore.origins.reference import Reference
from fusefs.containerd.client import ContainerdError
from fusefs.containers.expected import LetGo
from fusefs.containers.lazyimages import RegistryImages
from fusefs.containers.plan import Plan
from fusefs.containers.puller import Pulled, Puller
from fusefs.containers.pullservice import PullRequest, Say

from .groups import ungrouped
from .lazy import MAX_CONFIG, diff_ids
from .oci import machine
from .registries import Proof, registry
from .setup import Registries

_FAREWELL = 10.0
"""Seconds for containerd to take back a lease."""


class Pulling:
    """Pulls into the containerd at *containerd* from registries asked with *client*.

    A credential that comes with a pull goes to *lazy* directly, past containerd, which would write
    it down with the snapshot's labels.
    """

    def __init__(
        self,
        client: Client,
        registries: Registries,
        containerd: Path,
        lazy: RegistryImages,
        nursery: trio.Nursery,
    ) -> None:
        self._client = client
        self._lazy = lazy
        self._registries = registries
        self._containerd = containerd
        self._nursery = nursery

    async def pull(self, request: PullRequest, say: Say, let_go: LetGo) -> str:
        """Pull what *request* says; raises ChunkstoreError, ContainerdError, FusefsError.

        *let_go* has an image unmounted that no snapshot needs.
        """
        reference = Reference.parse(request.reference)
        told = Credential(request.user, request.secret) if request.secret else None
        if told is not None:
            self._lazy.introduce(reference, told)
        proof = Proof(told, self._registries)
        images = Images(registry(reference, self._client, self._registries, proof))
        puller = Puller(self._containerd, request.namespace, request.snapshotter)
        try:
            with ungrouped():
                async with trio.open_nursery() as nursery:
                    beginning = _Beginning()
                    nursery.start_soon(beginning.run, puller)
                    pulled = await self._look_up(request, reference, images)
                    async with self._lazy.expected(pulled.plan, let_go):
                        await beginning.ended()
                        work = partial(puller.pull, pulled, say)
                        await trio.to_thread.run_sync(work, abandon_on_cancel=True)
        except BaseException:
            await _end(puller, well=False)
            raise
        # The image has its name: what is left need not be waited for.
        self._nursery.start_soon(partial(_end, puller, well=True))
        return str(pulled.manifest.digest)

    async def _look_up(self, request: PullRequest, reference: Reference, images: Images) -> Pulled:
        platform = _platform(request.platform)
        top = await images.document(reference.name)
        manifest, described = await _manifest(images, top, platform)
        data = await images.content(described.config, MAX_CONFIG)
        plan = Plan(reference, manifest.digest, described.layers, diff_ids(data, reference))
        contents = Contents(images, described, trio.lowlevel.current_trio_token())
        return Pulled(
            name=str(reference),
            top=top if _is_alone(top, platform) else manifest,
            manifest=manifest,
            config=described.config,
            config_data=data,
            plan=plan,
            open=contents.open,
        )


class _Beginning:
    """A pull that begins, and does not fail before it is waited for: there is one error alone."""

    def __init__(self) -> None:
        self._done = trio.Event()
        self._failure: ContainerdError | None = None

    async def run(self, puller: Puller) -> None:
        """Have *puller* begin."""
        try:
            await trio.to_thread.run_sync(puller.begin)
        except ContainerdError as exc:
            self._failure = exc
        self._done.set()

    async def ended(self) -> None:
        """Wait for it; raises ContainerdError."""
        await self._done.wait()
        if self._failure is not None:
            raise self._failure


async def _end(puller: Puller, *, well: bool) -> None:
    with trio.move_on_after(_FAREWELL, shield=True):
        work = partial(puller.end, well=well)
        await trio.to_thread.run_sync(work, abandon_on_cancel=True)


async def _manifest(images: Images, top: Document, platform: Platform) -> tuple[Document, Manifest]:
    found = top.decode()
    if isinstance(found, Manifest):
        return top, found
    entry = found.choose(platform, feature=NYDUS_FEATURE)
    document = await images.document(str(entry.digest))
    described = document.decode()
    if isinstance(described, Index):
        raise Corrupt(f"{entry.digest}: an index within an index")
    return document, described


def _is_alone(top: Document, platform: Platform) -> bool:
    """Say whether containerd chooses from *top* as we do.

    Version 1 knows no platform features, version 2 passes over those with features.
    """
    found = top.decode()
    if isinstance(found, Manifest):
        return True
    fitting = [one for one in found.manifests if one.platform and one.platform.fits(platform)]
    return (
        len(fitting) == 1 and fitting[0].platform is not None and not fitting[0].platform.features
    )


def _platform(text: str) -> Platform:
    if not text:
        return machine()
    try:
        return Platform.parse(text)
    except ValueError as exc:
        raise Malformed(f"not a platform: {text[:100]!r}; one is linux/amd64") from exc
