"""The daemon of a session of many images: they come and go while it serves.

Tasks: one per image, in the nursery of `hosted`, which lives until the image is hidden.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import trio

from chunkstore import ChunkstoreError, Digest
from chunkstore.blobcache import BlobCache
from chunkstore.http import Client
from chunkstore.imagestore import ImageStore
from chunkstore.origins.registryorigin import RegistryOrigin
from chunkstore.scrub import scrub
from fusefs import vfs
from fusefs.beginnings import Beginnings
from fusefs.blobfiles import BlobFiles
from fusefs.containers.gallery import Showing
from fusefs.control import Command
from fusefs.daemon import Wired
from fusefs.errors import FusefsError
from fusefs.mounting.shown import Shown
from fusefs.mounting.supervisor import Handoff
from fusefs.slots import Slots
from rafs import NoEntry, RafsError

from .ahead import fetch_ahead
from .clients import client_of
from .groups import ungrouped
from .oci import Layers, Repository
from .opening import Image, opened_at
from .registries import Proof, is_plain, registry
from .setup import GalleryRequest
from .stack import Peers, shown_by, store_for, taking_part, told, watch

logger = logging.getLogger(__name__)

_AGAIN = 5.0
"""Seconds until an image that could not be shown again is tried anew."""


class _Kept(msgspec.Struct, frozen=True):
    """What a daemon after this one must show, and how."""

    showing: Showing
    driver: str


@dataclass(slots=True)
class _Hosted:
    """An image that is shown."""

    image: Image
    store: ImageStore
    proof: Proof
    shown: Shown
    scope: trio.CancelScope
    gone: trio.Event


@asynccontextmanager
async def hosted(request: GalleryRequest, handoff: Handoff) -> AsyncIterator[Wired]:
    """Serve images that callers of the control socket name, and those of a daemon before."""
    cache = BlobCache(request.setup.cache, limit=request.cache_limit)
    part = taking_part(request.membership, cache)
    with client_of(request.setup) as client:
        async with part as peers, trio.open_nursery() as nursery:
            host = _Host(request, client, cache, peers, nursery)
            await host.restore()
            nursery.start_soon(scrub, cache)
            commands = {Command.SHOW: host.show, Command.HIDE: host.hide}
            yield Wired(host.vfs, host.told, commands=commands)
            nursery.cancel_scope.cancel()
    cache.close()


class _Host:
    def __init__(
        self,
        request: GalleryRequest,
        client: Client,
        cache: BlobCache,
        peers: Peers | None,
        nursery: trio.Nursery,
    ) -> None:
        self.vfs = vfs.Vfs(slots=Slots(request.folder / "slots"))
        self._request = request
        self._client = client
        self._cache = cache
        self._peers = peers
        self._nursery = nursery
        self._list = _List(request.folder / "images")
        self._hosted: dict[str, _Hosted] = {}

    async def restore(self) -> None:
        """Show what a daemon before this one did; what cannot be had is tried again."""
        async with trio.open_nursery() as nursery:
            for kept in self._list.kept.values():
                nursery.start_soon(self._restore, kept)

    async def _restore(self, kept: _Kept) -> None:
        try:
            await self._start(kept.showing, kept.driver, again=True)
        except (ChunkstoreError, RafsError, FusefsError, OSError) as exc:
            logger.error("cannot show again image=%s reason=%s", kept.showing.name, exc)
            self._nursery.start_soon(self._restore_later, kept)

    async def _restore_later(self, kept: _Kept) -> None:
        await trio.sleep(_AGAIN)
        name = kept.showing.name
        if name in self._list.kept and name not in self._hosted:
            await self._restore(kept)

    async def show(self, argument: bytes) -> Mapping[str, object]:
        """Show an image, and say how; with a credential also for one that is shown."""
        showing = _decoded(argument)
        found = self._hosted.get(showing.name)
        if found is None:
            await self._start(showing, showing.driver or self._request.driver, again=False)
            found = self._hosted[showing.name]
        elif showing.credential is not None:
            found.proof.told = showing.credential
        return msgspec.to_builtins(found.shown)  # type: ignore[no-any-return]

    async def hide(self, argument: bytes) -> Mapping[str, object]:
        """Show an image no more."""
        name = _decoded(argument).name
        self._list.drop(name)
        found = self._hosted.pop(name, None)
        if found is not None:
            found.scope.cancel()
            await found.gone.wait()
        return {}

    async def _start(self, showing: Showing, driver: str, *, again: bool) -> None:
        if showing.name in self._hosted:
            return
        with ungrouped():
            hosted = await self._nursery.start(self._serve, showing, driver, again)
        self._hosted[showing.name] = hosted
        self._list.add(_Kept(showing.public, hosted.shown.driver))

    async def _serve(
        self,
        showing: Showing,
        driver: str,
        again: bool,
        task_status: trio.TaskStatus[_Hosted],
    ) -> None:
        request, digest = self._request, Digest.parse(showing.image.bootstrap)
        reference = showing.image.reference
        proof = Proof(showing.credential, request.registries)
        where = registry(reference, self._client, request.registries, proof)
        place = Layers(Repository(where), RegistryOrigin(where))
        setup = replace(request.setup, plain_http=is_plain(reference, request.registries))
        known = digest if again else None
        with trio.CancelScope() as scope:
            async with opened_at(str(reference), place, setup, digest, known) as image:
                store = store_for(image, self._cache, setup, peers=self._peers)
                async with trio.open_nursery() as nursery:
                    await nursery.start(store.run)
                    await store.prepare(image.bootstrap.blobs)
                    # What a start needs is on its way while its metadata is checked.
                    nursery.start_soon(fetch_ahead, image.bootstrap, store, request.prefetch)
                    shown = await shown_by(image, driver, known)
                    direct = shown.driver == "erofs"
                    tree = BlobFiles(image.bootstrap) if direct else image.bootstrap
                    gone = trio.Event()
                    reader = Beginnings(store, image.bootstrap)
                    shows = vfs.Image(showing.name, tree, reader, direct, wholly=not direct)
                    self.vfs.add(shows)
                    try:
                        task_status.started(_Hosted(image, store, proof, shown, scope, gone))
                        nursery.start_soon(watch, image.kept)
                        await trio.sleep_forever()
                    finally:
                        self._forget(showing.name, kept=showing.name in self._list.kept)
                        gone.set()

    def _forget(self, name: str, *, kept: bool) -> None:
        """Take an image out of the file system, unless the whole session ends."""
        if not kept:
            try:
                self.vfs.remove(name)
            except NoEntry:
                return

    def told(self) -> Mapping[str, object]:
        """Return what ``status`` tells: sums, and of each image by its name."""
        images = {
            name: {
                "image": found.image.name,
                "driver": found.shown.driver,
                "driver_reason": found.shown.reason,
                "chunks": sum(blob.chunk_count for blob in found.image.bootstrap.blobs),
            }
            | told(found.image, found.store)
            for name, found in self._hosted.items()
        }
        sums = {
            key: sum(_number(facts[key]) for facts in images.values())
            for key in ("size", "ready_bytes", "pending_chunks", "refused_reads")
        }
        swarm = {} if self._peers is None else {"swarm": self._peers.statistics()}
        return {**sums, "sources": _sources(images), "images": images, **swarm}


class _List:
    """What is shown, in a file of the session's state folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.kept = {kept.showing.name: kept for kept in _read(path)}

    def add(self, kept: _Kept) -> None:
        """Note an image."""
        self.kept[kept.showing.name] = kept
        self._write()

    def drop(self, name: str) -> None:
        """Forget an image."""
        if self.kept.pop(name, None):
            self._write()

    def _write(self) -> None:
        part = self._path.with_name(f"{self._path.name}.part")
        part.write_bytes(msgspec.json.encode(list(self.kept.values())))
        part.replace(self._path)


def _read(path: Path) -> list[_Kept]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[_Kept])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise FusefsError(f"{path}: which images to show cannot be read: {exc}") from exc


def _decoded(argument: bytes) -> Showing:
    try:
        return msgspec.json.decode(argument, type=Showing)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # The decoder's words could quote what they stumbled over, which may be a secret.
        raise FusefsError("what is to be shown cannot be read") from None


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _sources(images: Mapping[str, Mapping[str, object]]) -> Mapping[str, Mapping[str, int]]:
    sums: dict[str, dict[str, int]] = {}
    for facts in images.values():
        sources = facts["sources"]
        assert isinstance(sources, dict)
        for name, tally in sources.items():
            found = sums.setdefault(name, dict.fromkeys(tally, 0))
            for key, value in tally.items():
                found[key] += value
    return sums
