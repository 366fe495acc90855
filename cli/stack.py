"""The one place where a mount is wired together: an image that is open → chunks → cache → reads."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from chunkstore import ChunkSource, Digest
from chunkstore.blobcache import BlobCache
from chunkstore.checks import Checks
from chunkstore.imagestore import ImageStore
from chunkstore.ledger import Ledger, Pulse
from chunkstore.originchunks import OriginChunks
from chunkstore.scrub import BETWEEN_PASSES, scrub
from chunkstore.shelf import Shelf
from chunkstore.stack import Counted
from chunkstore.whole import Whole
from fusefs import vfs
from fusefs.blobfiles import BlobFiles
from fusefs.control import Command
from fusefs.daemon import Wired
from fusefs.mounting.shown import Shown
from fusefs.mounting.supervisor import Handoff
from fusefs.pagecache.pages import forget_pages
from fusefs.trace import traced
from fusefs.warming import Warming
from rafs import BadImage, Bootstrap, Unsupported
from rafs.unhashed import nids

from .ahead import Together, complete, fetch_ahead
from .bootstraps import Bootstraps
from .driver import by_erofs, choose
from .hfcache import appearing
from .models import FUSE_ALONE, Unhashed
from .opening import Image, opened
from .precheck import Precheck
from .setup import Membership, MountRequest, Prefetch, Setup

_WATCH = 1.0
"""Seconds between looks at whether kept metadata has been written to."""

_PREPARED = 256
"""Blobs that are opened at once; those of a hub's repository of more files when they are read."""

_ON_ITS_WAY = 2.0
"""Seconds in which bytes that were lent from the cache have reached the kernel."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a seed finds an image."""

    image: str
    plain_http: bool
    proof: Callable[[], Awaitable[str | None]]
    """See ``Image.proof``."""
    checks: Checks | None = None
    """Where the image is of whole files: what checks them."""


class Peers(Protocol):
    """A mount's part in a swarm."""

    def before(self, origin: ChunkSource, where: Whereabouts, ledger: Ledger) -> ChunkSource:
        """Return what asks peers for an image's chunks, and *origin* for what none has."""
        ...

    def serve(self, store: ImageStore) -> None:
        """Have peers asked for what the readers of *store* wait for."""
        ...

    async def offer(self, checks: Checks) -> None:
        """Have peers know of the files of *checks* that were checked, now and later."""
        ...

    def statistics(self) -> Mapping[str, object]:
        """Return what ``status`` tells of the swarm."""
        ...


@asynccontextmanager
async def taking_part(membership: Membership, cache: BlobCache) -> AsyncIterator[Peers | None]:
    """Take part in a swarm, if one is named; else what that needs is not even loaded (0.2 s)."""
    if not membership.schedulers and not membership.listen:
        yield None
        return
    async with importlib.import_module("cli.peering").taking_part(membership, cache) as peers:
        yield peers


@asynccontextmanager
async def wired(
    request: MountRequest, handoff: Handoff, precheck: Precheck | None = None
) -> AsyncIterator[Wired]:
    """Make what a mount's daemon serves, run its tasks, and take it down."""
    vitals = handoff.vitals
    before, driver, *more = vitals.legacy.decode().split() or ("", "")
    again = Digest.parse(before) if before else None
    unhashed = Unhashed.KNOWN if more else Unhashed.ALLOWED
    cache = BlobCache(request.setup.cache, limit=request.cache_limit)
    opening = opened(request.image, request.setup, request.pin, again, unhashed=unhashed)
    async with opening as image:
        shown = await shown_by(image, driver or handoff.driver, again, precheck)
        legacy = f"{image.digest} {shown.driver}" + (" unhashed" if image.files else "")
        vitals.legacy = legacy.encode()
        checks = Checks(cache, image.files.wholes) if image.files else None
        async with taking_part(request.membership, cache) as peers, trio.open_nursery() as nursery:
            store = store_for(image, cache, request.setup, checks, peers)
            await nursery.start(store.run)
            await store.prepare(image.bootstrap.blobs[:_PREPARED])
            nursery.start_soon(scrub, cache)
            nursery.start_soon(watch, image.kept)
            nursery.start_soon(fetch_ahead, image.bootstrap, store, request.prefetch)
            shows = appearing(request.hf_cache, request.mountpoint, image.bootstrap, request.image)
            with shows, traced(image.bootstrap, request.trace) as tree:
                direct = shown.driver == "erofs"
                if direct:
                    tree = BlobFiles(image.bootstrap)
                shown_as = vfs.Image(image.digest.hex[:12], tree, store, direct, wholly=not direct)
                served = vfs.Vfs(shown_as)
                if checks is not None:
                    nursery.start_soon(checks.run, partial(_forgotten, served, image.bootstrap))
                    if peers is not None:
                        nursery.start_soon(peers.offer, checks)
                    if request.prefetch is not Prefetch.NONE:
                        nursery.start_soon(complete, image.bootstrap, store, checks)
                warming = Warming(image.bootstrap, store)
                nursery.start_soon(warming.run)
                facts = partial(told, image, store, checks, peers)
                together = Together(image.bootstrap, store, nursery).around(warming.ask)
                yield Wired(served, facts, shown, {Command.WARM: together})
            nursery.cancel_scope.cancel()
    cache.close()


async def shown_by(
    image: Image, driver: str, again: Digest | None, precheck: Precheck | None = None
) -> Shown:
    """Return how users see *image*: as a daemon before this one found, or as it turns out."""
    if driver == "fuse":
        return Shown()
    if image.files is not None:
        if driver == "erofs":
            raise Unsupported(f"--driver erofs: {FUSE_ALONE}")
        return Shown("fuse", FUSE_ALONE)
    if again is not None:
        return by_erofs(image.bootstrap, image.digest, image.kept)
    try:
        return await choose(driver, image.bootstrap, image.digest, image.kept, precheck)
    finally:
        if precheck is not None:
            precheck.end()


async def _forgotten(served: vfs.Vfs, bootstrap: Bootstrap, wrong: Whole) -> None:
    """Have the kernel forget what it keeps of a file whose bytes were wrong.

    Twice: what was on its way to the kernel when they were dropped has arrived by then.
    """
    nodes = [served.node(nid) for nid in nids(bootstrap, wrong.checksum)]
    await forget_pages(nodes)
    await trio.sleep(_ON_ITS_WAY)
    await forget_pages(nodes)


def store_for(
    image: Image,
    cache: BlobCache,
    setup: Setup,
    checks: Checks | None = None,
    peers: Peers | None = None,
) -> ImageStore:
    """Stack what an image is read from: cache, then peers, then origin."""
    pulse, ledger = Pulse(), Ledger()
    origin = OriginChunks(image.origin, pulse=pulse, ledger=ledger)
    source: ChunkSource = Counted(origin, "origin", ledger)
    if peers is not None:
        where = Whereabouts(image.name, setup.plain_http, image.proof, checks)
        source = peers.before(source, where, ledger)
    store = ImageStore(
        cache,
        source,
        owner=image.digest,
        deadline=setup.patience,
        pulse=pulse,
        ledger=ledger,
        open_shelf=checks or Shelf,
    )
    if peers is not None:
        peers.serve(store)
    return store


def told(
    image: Image, store: ImageStore, checks: Checks | None = None, peers: Peers | None = None
) -> dict[str, object]:
    """Return what ``status`` tells of an image and its store."""
    facts = store.statistics()
    sources = {
        name: {"chunks": tally.chunks, "bytes": tally.size, "stored_bytes": tally.stored_size}
        for name, tally in facts.sources.items()
    }
    files = {"commit": image.files.commit} if image.files and image.files.commit else {}
    failures = checks.failures if checks else []
    unverified = {"unverified": checks.unverified} if checks else {}
    return {
        "digest": str(image.digest),
        "size": sum(blob.size for blob in image.bootstrap.blobs),
        "ready_bytes": facts.ready_size,
        "held_bytes": facts.held_size,
        "sources": {"cache": _NOTHING, "peer": _NOTHING, "origin": _NOTHING} | sources,
        "pending_chunks": facts.pending_chunks,
        "refused_reads": facts.refused_reads,
        "last_error": facts.last_error or (failures[-1] if failures else None),
        "last_error_at": facts.last_error_at,
        **files,
        **unverified,
        **({} if peers is None else {"swarm": peers.statistics()}),
    }


_NOTHING = {"chunks": 0, "bytes": 0, "stored_bytes": 0}


async def watch(kept: Bootstraps) -> None:
    """Raise BadImage when metadata that is being served has changed on the disk.

    That ends this daemon. The next one finds the damage and fetches the metadata anew.
    """
    hashed = trio.current_time()
    while True:
        await trio.sleep(_WATCH)
        thoroughly = trio.current_time() - hashed >= BETWEEN_PASSES
        if thoroughly:
            hashed = trio.current_time()
        look = partial(kept.altered, thoroughly=thoroughly)
        path = await trio.to_thread.run_sync(look, limiter=trio.CapacityLimiter(1))
        if path is not None:
            raise BadImage(f"{path} was changed on the disk while it was in use")
