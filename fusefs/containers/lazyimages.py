"""LazyImages: which layers need no unpacking, because the image that they belong to is mounted.

A layer is recognised by annotations, which anybody can write, so nothing follows from them but a
closer look. What an image is, is proven: its config names the uncompressed layers by digest, a
chain id is a hash over those, and it is the chain id that the snapshot is to be known by. Of a data
layer the digest in the config must be the blob's own; of the bootstrap's layer it must be that of
the tar that the bootstrap was taken from. What does not prove itself is left to containerd to
unpack, which checks it in its own way.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec
import trio

from chunkstore import ChunkstoreError, Digest, Malformed
from chunkstore.origins.credentials import Credential
from chunkstore.origins.reference import Reference
from fusefs.containerd.messages import Labels
from fusefs.errors import MountFailed
from rafs import RafsError

from .expected import Expected, LetGo, Name, Work
from .plan import Plan
from .snapshots import DATA, Snapshot, Usage
from .snapshotter import TARGET

logger = logging.getLogger(__name__)

DATA_MARK = "containerd.io/snapshot/nydus-blob"
BOOTSTRAP_MARK = "containerd.io/snapshot/nydus-bootstrap"

REFERENCES = (
    "containerd.io/snapshot/cri.image-ref",
    "containerd.io/snapshot/remote/stargz.reference",
)
"""Labels by which clients that pull lazily name the image; the first that is there counts."""

MANIFEST = "containerd.io/snapshot/cri.manifest-digest"
USER, SECRET = "containerd.io/snapshot/pullusername", "containerd.io/snapshot/pullsecret"

_DEADLINE = 60.0
"""Seconds to find out what an image is and mount it; whoever pulls may try again."""

_PLANS = 256
"""Images whose manifest and config are kept in memory."""


class LazyImage(msgspec.Struct, frozen=True):
    """An image as the store keeps it: all that it takes to mount it, and no secret."""

    repository: str
    """``HOST[:PORT]/REPO``."""
    manifest: str
    """Digest of the manifest."""
    bootstrap: str
    """Digest of the bootstrap."""

    def encode(self) -> str:
        """Return it as text; equal images as equal text."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str) -> LazyImage:
        """Read what `encode` wrote."""
        return msgspec.json.decode(text, type=cls)

    @property
    def name(self) -> str:
        """A name for a folder, of this image from this repository alone."""
        return hashlib.sha256(f"{self.repository}@{self.manifest}".encode()).hexdigest()[:16]

    @property
    def reference(self) -> Reference:
        """What it is called in its registry."""
        return Reference.parse(f"{self.repository}@{self.manifest}")


class Sources(Protocol):
    """Where images are looked up."""

    async def plan(
        self, reference: Reference, manifest: Digest | None, credential: Credential | None
    ) -> Plan:
        """Return what *manifest*, or else what *reference* means on this machine, is made of."""
        ...

    async def bootstrap(self, plan: Plan, credential: Credential | None) -> Digest:
        """Keep the bootstrap of *plan* on this machine and return its digest.

        Raises Corrupt or BadImage where its layer is not what the plan says.
        """
        ...

    async def check(self, bootstrap: Digest) -> None:
        """Look for faults in a bootstrap that is kept, so that whoever mounts it need not."""
        ...


class Mounter(Protocol):
    """What shows images as trees of files."""

    @property
    def is_lazy(self) -> bool:
        """Say whether it takes but a moment, as far as is known: nothing is unpacked for it."""
        ...

    async def mount(self, image: LazyImage, credential: Credential | None) -> None:
        """Have *image* mounted; nothing where it is. Raises MountFailed."""
        ...

    async def unmount(self, image: LazyImage) -> None:
        """Have it mounted no more."""
        ...

    def shows(self, image: LazyImage) -> bool:
        """Say whether it is mounted."""
        ...

    def tree(self, image: LazyImage) -> Path:
        """Return where it is mounted; raises MountFailed where it is not."""
        ...

    async def usage(self, image: LazyImage) -> Usage:
        """Return what is here of its data."""
        ...


class RegistryImages:
    """Lends the layers of images that a registry has and *mounter* mounts.

    Tasks: one in *nursery* per image that is being pulled, which fetches its bootstrap while the
    layers before that are still asked for, and mounts those that `expected` tells of.
    """

    def __init__(self, sources: Sources, mounter: Mounter, nursery: trio.Nursery) -> None:
        self._sources = sources
        self._nursery = nursery
        self._bringing: dict[str, trio.Event] = {}
        """Bootstraps that are being fetched ahead, by manifest."""
        self._mounter = mounter
        self._plans: OrderedDict[tuple[str, str], Plan] = OrderedDict()
        """By repository and the digest of the manifest."""
        self._expected = Expected(nursery, _DEADLINE)
        self._introduced: OrderedDict[str, Credential] = OrderedDict()
        """By repository; in memory only."""
        self._looking: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)
        """One look-up per reference at a time; an entry lives while somebody waits."""

    def introduce(self, reference: Reference, credential: Credential) -> None:
        """Be *credential* to the repository of *reference* where labels bring none."""
        self._introduced[_repository(reference)] = credential
        while len(self._introduced) > _PLANS:
            self._introduced.popitem(last=False)

    @asynccontextmanager
    async def expected(self, plan: Plan, let_go: LetGo) -> AsyncIterator[None]:
        """Mount the image of *plan* while the block has its layers prepared one by one.

        After that *let_go* is told of it: no snapshot may need it.
        """
        if not plan.layers or plan.layers[-1].annotation(BOOTSTRAP_MARK) != "true":
            yield
            return
        self._keep(plan)
        credential = self._known(plan.reference)
        work = Work(
            find=partial(self._image, plan, credential),
            mount=partial(self._mount, credential=credential),
            let_go=let_go,
            is_quick=lambda: self._mounter.is_lazy,
        )
        async with self._expected.pulled(_named(plan), credential, work):
            yield

    async def _image(self, plan: Plan, credential: Credential | None) -> str:
        bootstrap = await self._sources.bootstrap(plan, credential)
        return LazyImage(*_named(plan), str(bootstrap)).encode()

    async def _mount(self, image: str, credential: Credential | None) -> None:
        await self._mounter.mount(LazyImage.decode(image), credential)

    async def ready(self, image: str) -> None:
        """Have *image* mounted, which may be coming, or could not be had when it was to be."""
        found = LazyImage.decode(image)
        with _in_time(found.reference):
            await self._expected.settled((found.repository, found.manifest))
            if not self._mounter.shows(found):
                await self._mount(image, self._known(found.reference))

    async def offer(self, target: str, parents: Sequence[Snapshot], labels: Labels) -> str | None:
        """Return the image of the layer that *labels* describe, mounted.

        Raises MountFailed where it is a lazy image's and cannot be had now.
        """
        asked = _Asked.of(labels)
        if asked is None:
            return None
        if asked.credential is None:
            asked = replace(asked, credential=self._known(asked.reference))
        with _in_time(asked.reference):
            return await self._offer(asked, target, parents)

    async def _offer(self, asked: _Asked, target: str, parents: Sequence[Snapshot]) -> str | None:
        plan = await self._plan(asked, target)
        why = _doubt(plan, target, parents, is_bootstrap=asked.is_bootstrap)
        if why:
            logger.warning("a layer is left to containerd image=%s reason=%s", asked.reference, why)
            return None
        name = _named(plan)
        if not asked.is_bootstrap:
            if not parents and name not in self._expected:
                self._bring(plan, asked.credential)
            return DATA
        if image := await self._expected.found(name, asked.credential):
            return image
        if (coming := self._bringing.get(str(plan.manifest))) is not None:
            await coming.wait()
        image = await self._image(plan, asked.credential)
        await self._mount(image, asked.credential)
        return image

    def _known(self, reference: Reference) -> Credential | None:
        return self._introduced.get(_repository(reference))

    async def _plan(self, asked: _Asked, target: str) -> Plan:
        repository = _repository(asked.reference)
        lock = self._looking[repository]
        try:
            async with lock:
                for (place, _), plan in self._plans.items():
                    if place == repository and target in plan.chains:
                        return plan
                found = await self._sources.plan(asked.reference, asked.manifest, asked.credential)
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._looking.pop(repository, None)
        self._keep(found)
        return found

    def _keep(self, plan: Plan) -> None:
        self._plans[_named(plan)] = plan
        while len(self._plans) > _PLANS:
            self._plans.popitem(last=False)

    def _bring(self, plan: Plan, credential: Credential | None) -> None:
        """Have the bootstrap fetched in the background, unless it is being."""
        name = str(plan.manifest)
        if name not in self._bringing:
            self._bringing[name] = trio.Event()
            self._nursery.start_soon(self._brought, plan, credential)

    async def _brought(self, plan: Plan, credential: Credential | None) -> None:
        try:
            with trio.move_on_after(_DEADLINE):
                await self._sources.check(await self._sources.bootstrap(plan, credential))
        except (ChunkstoreError, RafsError, OSError) as exc:
            # Whoever needs it tries again, and is told.
            logger.info("bootstrap did not come image=%s reason=%s", plan.reference, exc)
        finally:
            self._bringing.pop(str(plan.manifest)).set()

    async def restore(self, images: Sequence[str]) -> None:
        """Mount again what snapshots need; what cannot be had is told and left."""
        for text in images:
            image = LazyImage.decode(text)
            try:
                await self._mounter.mount(image, None)
            except (MountFailed, ChunkstoreError, RafsError) as exc:
                logger.error("cannot mount again image=%s reason=%s", image.reference, exc)

    def tree(self, image: str) -> Path:
        """Return where *image* is mounted."""
        return self._mounter.tree(LazyImage.decode(image))

    async def release(self, image: str) -> None:
        """Unmount *image*, unless it is just being pulled."""
        found = LazyImage.decode(image)
        if (found.repository, found.manifest) not in self._expected:
            await self._mounter.unmount(found)

    async def usage(self, image: str) -> Usage:
        """Return what is here of *image*."""
        return await self._mounter.usage(LazyImage.decode(image))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What labels say of a layer that may be loaded lazily."""

    reference: Reference
    manifest: Digest | None
    is_bootstrap: bool
    credential: Credential | None = field(repr=False)

    @classmethod
    def of(cls, labels: Labels) -> _Asked | None:
        """Read them; None for an ordinary layer, or where the image is not named."""
        is_bootstrap = labels.get(BOOTSTRAP_MARK) == "true"
        if not is_bootstrap and labels.get(DATA_MARK) != "true":
            return None
        named = next((labels[name] for name in REFERENCES if labels.get(name)), None)
        if named is None:
            return None
        try:
            reference = Reference.parse(named)
            manifest = Digest.parse(labels[MANIFEST]) if labels.get(MANIFEST) else None
        except Malformed as exc:
            logger.warning("a layer is left to containerd: %s", exc)
            return None
        return cls(reference, manifest, is_bootstrap, _credential(labels))


@contextmanager
def _in_time(reference: Reference) -> Iterator[None]:
    """Raise MountFailed for what hinders a mount, and where it takes too long."""
    try:
        with trio.fail_after(_DEADLINE):
            yield
    except trio.TooSlowError as exc:
        raise MountFailed(f"{reference}: not mounted in {_DEADLINE:g} s") from exc
    except (ChunkstoreError, RafsError) as exc:
        raise MountFailed(f"{reference}: {exc}") from exc


def _repository(reference: Reference) -> str:
    return f"{reference.host}/{reference.repository}"


def _named(plan: Plan) -> Name:
    return _repository(plan.reference), str(plan.manifest)


def _credential(labels: Labels) -> Credential | None:
    user, secret = labels.get(USER, ""), labels.get(SECRET, "")
    if not secret:
        return None
    return Credential(user or "<token>", secret, is_identity=not user)


def _doubt(plan: Plan, target: str, parents: Sequence[Snapshot], *, is_bootstrap: bool) -> str:
    """Say why a layer is not what it claims to be; empty: it is."""
    index = plan.chains.get(target)
    if index is None:
        return f"no layer of {plan.manifest} has the chain id {target}"
    layer, is_last = plan.layers[index], index == len(plan.layers) - 1
    if is_bootstrap != (layer.annotation(BOOTSTRAP_MARK) == "true") or is_bootstrap != is_last:
        return f"layer {layer.digest} is not where a bootstrap is"
    if not is_bootstrap and str(layer.digest) != plan.diff_ids[index]:
        return f"layer {layer.digest} claims to be {plan.diff_ids[index]} when unpacked"
    if index == 0:
        return "it stands on another snapshot" if parents else ""
    below = parents[0] if parents else None
    if below is None or below.image != DATA:
        return "it does not stand on the data layer below it"
    if below.labels.get(TARGET) != plan.chain(index - 1):
        return "it stands on the data layer of another image"
    return ""
