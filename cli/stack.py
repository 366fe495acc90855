"""The one place where things are wired together: from what was typed to an image that can be read.

IMAGE text → place → bootstrap, checked and kept → origin → chunks → cache → reads.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import trio

from chunkstore import Buffer, ChunkSource, Digest, Origin, Refused, Unreachable
from chunkstore.blobcache import BlobCache
from chunkstore.checks import Checks
from chunkstore.http import Client
from chunkstore.imagestore import ImageStore
from chunkstore.ledger import Ledger, Pulse
from chunkstore.originchunks import OriginChunks
from chunkstore.origins.hubname import PREFIX
from chunkstore.origins.registryorigin import RegistryOrigin
from chunkstore.retrying import Retrying
from chunkstore.scrub import BETWEEN_PASSES, scrub
from chunkstore.shelf import Shelf
from chunkstore.stack import Counted
from chunkstore.whole import Whole
from fusefs import vfs
from fusefs.blobfiles import BlobFiles
from fusefs.control import Command
from fusefs.daemon import Wired
from fusefs.pages import forget_pages
from fusefs.shown import Shown
from fusefs.supervisor import Handoff
from fusefs.trace import traced
from fusefs.warming import Warming
from rafs import BadImage, Bootstrap, Unsupported, ci
from rafs.unhashed import nids

from .ahead import Together, complete, fetch_ahead
from .bootstraps import Bootstraps
from .clients import client_of
from .driver import by_erofs, choose
from .hfcache import appearing
from .hub import HubPlace, hub_of
from .image import find
from .models import FUSE_ALONE, Files, Unhashed, without_digests
from .oci import Layers
from .places import Place, ignore
from .setup import Membership, MountRequest, Prefetch, Setup

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PAUSES = (0.2, 1.0, 3.0)
"""Seconds before metadata is asked for again: a person waits for it."""

_WATCH = 1.0
"""Seconds between looks at whether kept metadata has been written to."""

_ON_ITS_WAY = 2.0
"""Seconds in which bytes that were lent from the cache have reached the kernel."""

_LONGEST_PAUSE = 10.0
"""Seconds that an origin may ask for at most."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is open."""

    name: str
    bootstrap: Bootstrap
    digest: Digest
    """SHA-256 of its bootstrap."""
    origin: Origin
    """Asked again until nothing has come for as long as the setup says."""
    kept: Bootstraps
    """Where the bootstrap lies."""
    files: Files | None = None
    """Of an image made of a hub's listing: what its chunks are checked by."""
    registry: RegistryOrigin | None = None
    """Where its blobs lie, if that is a registry."""

    async def proof(self) -> str | None:
        """Return what its registry was shown, for seeds that ask who may have it."""
        return await self.registry.proof() if self.registry else None


@asynccontextmanager
async def opened(
    name: str,
    setup: Setup,
    pin: Digest | None = None,
    again: Digest | None = None,
    *,
    unhashed: Unhashed = Unhashed.REFUSED,
) -> AsyncIterator[Image]:
    """Open the image that *name* names; its bootstrap must hash to *pin*.

    *again* is the bootstrap that a daemon before this one served: that one and no newer is opened,
    without asking the origin where it is kept. *unhashed* says what of an image whose chunks have
    no digests. Raises ChunkstoreError or RafsError.
    """
    with client_of(setup) as client:
        place = _place(name, client, setup)
        async with opened_at(name, place, setup, pin, again, unhashed=unhashed) as image:
            yield image


@asynccontextmanager
async def opened_at(
    name: str,
    place: Place,
    setup: Setup,
    pin: Digest | None,
    again: Digest | None,
    *,
    unhashed: Unhashed = Unhashed.REFUSED,
) -> AsyncIterator[Image]:
    """Open the image that lies at *place*; as `opened`."""
    kept = kept_in(setup)
    try:
        bootstrap, digest = await bootstrap_at(place, kept, pin, again)
        try:
            files = _files(name, place, bootstrap, unhashed)
            source = files.origin if files else place.origin
            origin = Retrying(source, deadline=setup.patience)
            registry = source if isinstance(source, RegistryOrigin) else None
            image = Image(name, bootstrap, digest, origin, kept, files, registry)
            await attach_lists(image)
            yield image
        finally:
            bootstrap.close()
    finally:
        kept.close()


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a seed finds an image."""

    image: str
    plain_http: bool
    proof: Callable[[], Awaitable[str | None]]
    """See ``Image.proof``."""


class Peers(Protocol):
    """A mount's part in a swarm."""

    def before(self, origin: ChunkSource, where: Whereabouts, ledger: Ledger) -> ChunkSource:
        """Return what asks peers for an image's chunks, and *origin* for what none has."""
        ...

    def serve(self, store: ImageStore) -> None:
        """Have peers asked for what the readers of *store* wait for."""
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
async def wired(request: MountRequest, handoff: Handoff) -> AsyncIterator[Wired]:
    """Make what a mount's daemon serves, run its tasks, and take it down."""
    vitals = handoff.vitals
    before, driver, *more = vitals.legacy.decode().split() or ("", "")
    again = Digest.parse(before) if before else None
    unhashed = Unhashed.KNOWN if more else Unhashed.ALLOWED
    cache = BlobCache(request.setup.cache, limit=request.cache_limit)
    opening = opened(request.image, request.setup, request.pin, again, unhashed=unhashed)
    async with opening as image:
        shown = await shown_by(image, driver or handoff.driver, again)
        legacy = f"{image.digest} {shown.driver}" + (" unhashed" if image.files else "")
        vitals.legacy = legacy.encode()
        checks = Checks(cache, image.files.wholes) if image.files else None
        # What a hub's file is, nobody knows for sure before it was checked as a whole.
        membership = request.membership if checks is None else Membership()
        async with taking_part(membership, cache) as peers, trio.open_nursery() as nursery:
            store = store_for(image, cache, request.setup, checks, peers)
            await nursery.start(store.run)
            await store.prepare(image.bootstrap.blobs)
            nursery.start_soon(scrub, cache)
            nursery.start_soon(watch, image.kept)
            nursery.start_soon(fetch_ahead, image.bootstrap, store, request.prefetch)
            shows = appearing(request.hf_cache, request.mountpoint, image.bootstrap, request.image)
            with shows, traced(image.bootstrap, request.trace) as tree:
                direct = shown.driver == "erofs"
                if direct:
                    tree = BlobFiles(image.bootstrap)
                served = vfs.Vfs(vfs.Image(image.digest.hex[:12], tree, store, direct))
                if checks is not None:
                    nursery.start_soon(checks.run, partial(_forgotten, served, image.bootstrap))
                    if request.prefetch is not Prefetch.NONE:
                        nursery.start_soon(complete, image.bootstrap, store, checks)
                warming = Warming(image.bootstrap, store)
                nursery.start_soon(warming.run)
                facts = partial(told, image, store, checks, peers)
                together = Together(image.bootstrap, store, nursery).around(warming.ask)
                yield Wired(served, facts, shown, {Command.WARM: together})
            nursery.cancel_scope.cancel()
    cache.close()


async def shown_by(image: Image, driver: str, again: Digest | None) -> Shown:
    """Return how users see *image*: as a daemon before this one found, or as it turns out."""
    if driver == "fuse":
        return Shown()
    if image.files is not None:
        if driver == "erofs":
            raise Unsupported(f"--driver erofs: {FUSE_ALONE}")
        return Shown("fuse", FUSE_ALONE)
    if again is not None:
        return by_erofs(image.bootstrap, image.digest, image.kept)
    return await choose(driver, image.bootstrap, image.digest, image.kept)


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
        where = Whereabouts(image.name, setup.plain_http, image.proof)
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


async def attach_lists(image: Image) -> None:
    """Attach the chunk lists of those blobs that only their own lists can tell the places of.

    They are kept, so that a later daemon needs no origin for them.
    """
    for needed in ci.ranges_needed(image.bootstrap):
        blob_id, start, size = needed.entry.blob.id, needed.start, needed.stop - needed.start
        data: Buffer | None = image.kept.kept_list(blob_id, start, size)
        found = data is not None
        if data is None:
            data = bytearray(size)
            await image.origin.read(blob_id, start, memoryview(data), ignore)
        image.bootstrap.attach(needed.blob_index, ci.decode(needed.entry, data))
        if not found:
            image.kept.keep_list(blob_id, start, data)


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


def reader(origin: Origin) -> Callable[[str, int, int], Buffer]:
    """Return what reads *origin* from any thread while this one's event loop runs."""
    token = trio.lowlevel.current_trio_token()

    def read(blob_id: str, start: int, stop: int) -> Buffer:
        into = bytearray(stop - start)
        trio.from_thread.run(
            origin.read, blob_id, start, memoryview(into), ignore, trio_token=token
        )
        return into

    return read


def open_all(names: Sequence[str], setup: Setup) -> list[Bootstrap]:
    """Open the bootstraps of *names*, for a caller without an event loop; theirs to close."""
    return [trio.run(_alone, name, setup) for name in names]


async def _alone(name: str, setup: Setup) -> Bootstrap:
    with client_of(setup) as client:
        place = _place(name, client, setup)
        bootstrap, _ = await bootstrap_at(place, kept_in(setup), None)
        _files(name, place, bootstrap, Unhashed.REFUSED)
        return bootstrap


def _files(name: str, place: Place, bootstrap: Bootstrap, unhashed: Unhashed) -> Files | None:
    """Return what an image is read from whose chunks have no digests; None for any other."""
    if not isinstance(place, HubPlace | Layers):
        return None
    if not place.is_unhashed and unhashed is not Unhashed.KNOWN:
        return None
    if unhashed is Unhashed.REFUSED:
        raise without_digests(name)
    return place.files(bootstrap)


def _place(name: str, client: Client, setup: Setup) -> Place:
    if name.startswith(PREFIX):
        return HubPlace(hub_of(name, client), setup)
    return find(name, client, plain_http=setup.plain_http)


def kept_in(setup: Setup) -> Bootstraps:
    """Return the bootstraps that the cache keeps."""
    BlobCache(setup.cache).close()  # makes the folder, or refuses one that is not ours alone
    return Bootstraps(setup.cache)


async def bootstrap_at(
    place: Place, kept: Bootstraps, pin: Digest | None, again: Digest | None = None
) -> tuple[Bootstrap, Digest]:
    """Return the bootstrap at *place* and its SHA-256, fetched only if it is not kept here."""
    pin = again or pin
    if pin is not None:
        found = await trio.to_thread.run_sync(kept.find, pin, place.within)
        if found is not None:
            return found, pin
    promise = await _patiently(place.promise)
    if _contradicts(promise.digest, pin):
        raise BadImage(f"the image's bootstrap is {promise.digest}, not {pin} as asked")
    wanted = pin or promise.digest or (promise.packed and kept.packed_as(promise.packed))
    if wanted is not None:
        found = await trio.to_thread.run_sync(kept.find, wanted, place.within)
        if found is not None:
            return found, wanted
    return await _fetched(place, kept, wanted, promise.packed)


def _contradicts(promised: Digest | None, pin: Digest | None) -> bool:
    if promised is None or pin is None:
        return False
    return promised.algorithm is pin.algorithm and promised != pin


async def _patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Do *work* again when the origin could not be reached, a few times."""
    for pause in _PAUSES:
        try:
            return await work()
        except Refused:
            raise
        except Unreachable as exc:
            logger.info("origin is asked again seconds=%.1f reason=%s", pause, exc)
            await trio.sleep(min(exc.retry_after or pause, _LONGEST_PAUSE))
    return await work()


async def _fetched(
    place: Place, kept: Bootstraps, wanted: Digest | None, packed: Digest | None
) -> tuple[Bootstrap, Digest]:
    async def fetch() -> Digest:
        with kept.arriving() as (file, path):
            await place.fetch(file)
            file.flush()
            return await trio.to_thread.run_sync(kept.keep, path, wanted)

    digest = await _patiently(fetch)
    if packed is not None:
        kept.remember(packed, digest)
    bootstrap = await trio.to_thread.run_sync(kept.find, digest, place.within)
    if bootstrap is None:
        raise BadImage(f"the bootstrap {digest} was damaged as soon as it was written")
    return bootstrap, digest
