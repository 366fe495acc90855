"""Snapshotter: what containerd asks of snapshots, done on the disk and in the store.

Tasks: every request is a task of the event loop. The store is one thread's at a time; walks of
whole trees (usage, removal) have threads of their own, so that nobody waits for them.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import trio

from fusefs.containerd.filters import BadFilter, Filter
from fusefs.containerd.messages import Kind, Labels, Mount
from fusefs.errors import BadRequest, MountFailed, NotInThisState, SnapshotExists

from .layers import Layers
from .snapshots import (
    DATA,
    Change,
    Snapshot,
    Usage,
    check_base,
    checked_key,
    checked_labels,
    fields_of,
)
from .snapshotstore import SnapshotStore

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE = 20.0
"""Seconds for an image's root directory; its daemon may just be being replaced."""

TARGET = "containerd.io/snapshot.ref"
"""Label of a layer that is being unpacked: the chain id that it is to be committed as."""

SECRETS = frozenset({"containerd.io/snapshot/pullusername", "containerd.io/snapshot/pullsecret"})
"""Labels that hold a credential; never stored."""


class LazyImages(Protocol):
    """Images that are mounted instead of unpacked."""

    async def offer(self, target: str, parents: Sequence[Snapshot], labels: Labels) -> str | None:
        """Return the image of the layer that *labels* describe: `DATA`, or a mounted one as JSON.

        None: the layer is to be unpacked like any other. What is returned is proven to be what
        *target*, its chain id, promises.
        """
        ...

    async def ready(self, image: str) -> None:
        """Have *image* mounted, if it is not yet; raises MountFailed."""
        ...

    def tree(self, image: str) -> Path:
        """Return where *image* is mounted."""
        ...

    async def release(self, image: str) -> None:
        """Unmount *image*, which no snapshot needs any more."""
        ...

    async def usage(self, image: str) -> Usage:
        """Return what *image* takes in the cache."""
        ...


class NoImages:
    """Nothing is loaded lazily."""

    async def offer(self, target: str, parents: Sequence[Snapshot], labels: Labels) -> str | None:
        """Have every layer unpacked."""
        return None

    async def ready(self, image: str) -> None:
        """Do nothing."""

    def tree(self, image: str) -> Path:
        """Refuse: nothing is mounted."""
        raise NotInThisState("this snapshotter mounts no images")

    async def release(self, image: str) -> None:
        """Do nothing."""

    async def usage(self, image: str) -> Usage:
        """Nothing is kept."""
        return Usage()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What Prepare and View are asked for."""

    kind: Kind
    key: str
    parent: str
    labels: Labels


class Snapshotter:
    """Every method raises SnapshotError."""

    def __init__(
        self,
        store: SnapshotStore,
        layers: Layers,
        images: LazyImages,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """*clock* gives nanoseconds since 1970."""
        self._store = store
        self._layers = layers
        self._images = images
        self._clock = clock
        self._one = trio.CapacityLimiter(1)
        self._targets: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)
        """One offer per chain id at a time; an entry lives while somebody waits."""

    async def start(self) -> None:
        """Remove what a crash left."""
        await self.cleanup()

    async def prepare(self, key: str, parent: str, labels: Labels) -> tuple[Mount, ...]:
        """Make a snapshot to write to; raises SnapshotExists for a layer that is lent."""
        labels = checked_labels(labels)
        target = labels.get(TARGET)
        if target and await self._lend(target, Wanted(Kind.COMMITTED, key, parent, labels)):
            raise SnapshotExists(f"target snapshot {target!r} exists")
        return await self._create(Wanted(Kind.ACTIVE, key, parent, labels))

    async def view(self, key: str, parent: str, labels: Labels) -> tuple[Mount, ...]:
        """Make a snapshot to read."""
        return await self._create(Wanted(Kind.VIEW, key, parent, checked_labels(labels)))

    async def mounts(self, key: str) -> tuple[Mount, ...]:
        """Return how to mount an active snapshot or a view."""
        snapshot, parents = await self._stored(lambda: (self._get(key), self._store.parents(key)))
        if snapshot.kind is Kind.COMMITTED:
            raise NotInThisState(f"snapshot {key!r} is committed: it has no mounts")
        await self._ready(parents)
        return self._mounts(snapshot, parents)

    async def commit(self, key: str, name: str, parent: str, labels: Labels) -> None:
        """Turn an active snapshot into a committed one."""
        checked_key(name)
        snapshot = await self._stored(self._get, key)
        if snapshot.kind is not Kind.ACTIVE:
            raise NotInThisState(f"snapshot {key!r} is not active")
        usage = await trio.to_thread.run_sync(self._layers.usage, snapshot)
        now = self._clock()
        await self._stored(self._store.commit, key, name, parent, _safe(labels), usage, now)

    async def stat(self, key: str) -> Snapshot:
        """Return a snapshot."""
        return await self._stored(self._get, key)

    async def update(self, key: str, change: Change) -> Snapshot:
        """Change a snapshot's labels and return it as it is then."""
        safe = Change(_safe(change.labels), change.paths)
        return await self._stored(self._store.update, checked_key(key), safe, self._clock())

    async def listed(self, filters: Sequence[str]) -> Iterator[Snapshot]:
        """Return the snapshots that one of *filters* holds for; all of them without filters."""
        try:
            wanted = Filter.parse(filters)
        except BadFilter as exc:
            raise BadRequest(str(exc)) from exc
        found = await self._stored(lambda: list(self._store.all()))
        return (snapshot for snapshot in found if wanted.holds(fields_of(snapshot)))

    async def usage(self, key: str) -> Usage:
        """Return what a snapshot takes on the disk."""
        snapshot = await self._stored(self._get, key)
        if snapshot.image:
            return await self._images.usage(snapshot.image)
        if snapshot.kind is Kind.ACTIVE:
            return await trio.to_thread.run_sync(self._layers.usage, snapshot)
        return snapshot.usage

    async def remove(self, key: str) -> None:
        """Remove a snapshot that no other stands on, with its files."""
        snapshot = await self._stored(self._store.remove, checked_key(key))
        if snapshot.is_ordinary:
            await trio.to_thread.run_sync(self._layers.remove, snapshot)
        elif snapshot.image:
            await self.let_go(snapshot.image)
        await self._stored(self._store.replenish)

    async def cleanup(self) -> None:
        """Remove folders that belong to no snapshot."""
        for stray in await self._stored(lambda: self._layers.strays(self._store.ids())):
            await trio.to_thread.run_sync(partial(shutil.rmtree, stray, ignore_errors=True))
            logger.info("stray folder removed path=%s", stray)

    async def images(self) -> set[str]:
        """Return the lazily loaded images that snapshots need."""
        return await self._stored(lambda: {one.image for one in self._store.all() if one.image})

    async def _create(self, wanted: Wanted) -> tuple[Mount, ...]:
        parents = await self._stored(self._parents_of, wanted.parent)
        check_base(parents)
        await self._ready(parents)
        owner = await self._owner(self._trees(parents))
        made = await self._stored(
            self._store.insert,
            self._new(wanted, None),
            lambda snapshot: self._layers.make(snapshot, owner),
        )
        return self._mounts(made, parents)

    async def _ready(self, parents: Sequence[Snapshot]) -> None:
        """Have the image mounted that a stack stands on."""
        for parent in parents:
            if parent.image is not None and parent.image != DATA:
                await self._images.ready(parent.image)
                return

    async def _owner(self, trees: Sequence[Path]) -> tuple[int, int] | None:
        """Return who owns the topmost tree, which may be an image whose daemon does not answer."""
        if not trees:
            return None
        try:
            with trio.fail_after(_PATIENCE):
                found = await trio.to_thread.run_sync(trees[0].stat, abandon_on_cancel=True)
        except trio.TooSlowError as exc:
            raise MountFailed(f"{trees[0]}: no answer in {_PATIENCE:g} s") from exc
        return found.st_uid, found.st_gid

    async def _lend(self, target: str, wanted: Wanted) -> bool:
        """Record the layer of a lazily loaded image; False: it is to be unpacked."""
        lock = self._targets[target]
        try:
            async with lock:
                return await self._lend_alone(target, wanted)
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._targets.pop(target, None)

    async def _lend_alone(self, target: str, wanted: Wanted) -> bool:
        parents = await self._stored(self._parents_of, wanted.parent)
        image = await self._images.offer(target, parents, wanted.labels)
        if image is None:
            return False
        known = await self._stored(self._store.lent, TARGET, target, wanted.parent)
        if known is None:
            # Another namespace may have the plain name, on a parent of its own.
            for key in (target, f"{wanted.key} {target}"):
                try:
                    named = Wanted(wanted.kind, key, wanted.parent, wanted.labels)
                    await self._stored(self._store.insert, self._new(named, image), _nothing)
                    break
                except SnapshotExists:
                    continue
        return True

    async def let_go(self, image: str) -> None:
        """Have a lazily loaded image unmounted, if no snapshot needs it."""
        if image not in await self.images():
            await self._images.release(image)

    def _new(self, wanted: Wanted, image: str | None) -> Snapshot:
        now = self._clock()
        labels = _safe(wanted.labels)
        return Snapshot(0, wanted.key, wanted.kind, wanted.parent, labels, now, now, image=image)

    def _get(self, key: str) -> Snapshot:
        return self._store.get(checked_key(key))

    def _parents_of(self, parent: str) -> Sequence[Snapshot]:
        return [self._store.get(parent), *self._store.parents(parent)] if parent else []

    def _mounts(self, snapshot: Snapshot, parents: Sequence[Snapshot]) -> tuple[Mount, ...]:
        return self._layers.mounts(snapshot, self._trees(parents))

    def _trees(self, parents: Sequence[Snapshot]) -> list[Path]:
        """Return what is stacked; an image shows everything below it."""
        trees: list[Path] = []
        for parent in parents:
            if parent.image is not None:
                return [*trees, self._images.tree(parent.image)] if parent.image != DATA else trees
            trees.append(self._layers.tree(parent))
        return trees

    async def _stored(self, work: Callable[..., T], *arguments: object) -> T:
        return await trio.to_thread.run_sync(work, *arguments, limiter=self._one)


def _safe(labels: Labels) -> dict[str, str]:
    return {name: value for name, value in labels.items() if name not in SECRETS}


def _nothing(snapshot: Snapshot) -> None:
    """Make nothing: a lazily loaded layer has no folder."""
