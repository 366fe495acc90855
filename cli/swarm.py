"""How a process takes part in a swarm: from options to a `Swarm` that runs."""

from __future__ import annotations

import importlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import trio

from chunkstore import Blob, ChunkSource, Malformed, Origin
from chunkstore.blobcache import BlobCache
from chunkstore.http import Client, Fence, Url, UrlPattern
from chunkstore.originchunks import OriginChunks
from chunkstore.origins.credentials import Credentials
from chunkstore.origins.http import HttpOrigin
from chunkstore.origins.reference import Reference
from chunkstore.origins.registry import Registry
from chunkstore.origins.registryorigin import RegistryOrigin
from chunkstore.origins.url import Ask
from chunkstore.retrying import Retrying
from p2p import wire
from p2p.admission import Admission
from p2p.download import Download
from p2p.files.seed import ByKind, FileSeeding
from p2p.gate import Gate
from p2p.line import split
from p2p.messages import Hello
from p2p.net import Tcp
from p2p.scheduling.evaluator import Limits
from p2p.scheduling.scheduler import Settings
from p2p.security import Identity, Papers, Role, Security, is_loopback
from p2p.seed import Seeding
from p2p.server import SEED_SLOTS, SLOTS
from p2p.service import Service
from p2p.sharing import Sharing
from p2p.source import Joining
from p2p.swarm import Host, Swarm

from .clients import fenced_client
from .names import is_remote, shown
from .setup import Membership, Safety, Setup

Proof = Callable[[], Awaitable[str | None]]
"""Returns what an image's origin was shown, if it is a registry that wanted to be shown something.
"""

SWARM_WORKERS = 16
"""Fetches of one image side by side where peers answer: the chooser sees what all of them want."""

_BLOB = re.compile(r"/v2/([a-z0-9._/-]{1,255})/blobs/sha256:[0-9a-f]{64}")
"""What the url of a registry's blob ends in."""

LOOKED_AGAIN = 5.0
"""Seconds between looks at which blobs lie in the cache."""

_PLAIN, _SECURE = "oci+http://", "oci://"
"""What the repository of a registry begins with in a task's description."""


def security(safety: Safety) -> Security:
    """Return how connections are secured; raises BadPapers."""
    identity = None if safety.papers is None else Identity(Papers(*safety.papers))
    return Security(identity, insecure=safety.insecure)


@asynccontextmanager
async def in_swarm(
    membership: Membership, cache: BlobCache, role: Role = Role.PEER
) -> AsyncIterator[Swarm | None]:
    """Take part while the context lasts; None where nothing says with whom."""
    if not membership.schedulers and not membership.listen:
        yield None
        return
    if membership.safety.papers is not None:
        papers = importlib.import_module("cli.papers")
        await trio.to_thread.run_sync(papers.require_roles, membership.safety, role)
    schedulers = membership.schedulers
    service = None
    if "self" in schedulers:
        service = Service()
        own = [membership.listen if each == "self" else each for each in schedulers]
        membership = replace(membership, schedulers=tuple(own))
    secured = security(membership.safety)
    swarm = Swarm(cache, _host(membership, role), secured, service)
    metered = _metered(membership.metrics, secured, swarm, service)
    async with trio.open_nursery() as nursery, metered:
        await nursery.start(swarm.run)
        yield swarm
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _metered(
    address: str, secured: Security, swarm: Swarm | None, service: Service | None
) -> AsyncIterator[None]:
    """Answer Prometheus while the context lasts, if *address* says where."""
    if not address:
        yield
        return
    scheduler = None if service is None else service.scheduler
    module = importlib.import_module("cli.metrics")
    async with module.metrics(address, secured, swarm, scheduler):
        yield


def _host(membership: Membership, role: Role) -> Host:
    return Host(
        schedulers=membership.schedulers,
        listen=membership.listen,
        uploads=membership.uploads,
        upload_rate=membership.upload_limit,
        download_rate=membership.download_limit,
        slots=membership.slots or (SEED_SLOTS if role is Role.SEED else SLOTS),
        idc=membership.idc,
        location=membership.location,
        kind=role,
    )


def joining(swarm: Swarm, where: str, proof: Proof) -> Joining:
    """Return what takes part in the tasks of an image whose blobs a seed finds at *where*.

    A seed may want to see *proof* that this host may have them.
    """

    async def join(blob: Blob) -> Download | None:
        try:
            return await swarm.join(blob, where, await proof())
        except OSError:  # no room for the blob's files: its chunks are not kept, nor shared
            return None

    return join


def seedable(image: str, *, plain_http: bool) -> str:
    """Return where a seed finds an image's blobs; empty where only this machine can."""
    if is_remote(image):
        return image if shown(image) == image else ""
    if image.startswith(("oci:", "hf:")) or Path(image).exists():
        return ""
    try:
        named = Reference.parse(image)
    except Malformed:
        return ""
    plain = plain_http or named.is_local
    return f"{_PLAIN if plain else _SECURE}{named.host}/{named.repository}"


@asynccontextmanager
async def seeded(
    where: str, client: Client, fence: Fence, patience: float, *, as_user: bool = False
) -> AsyncIterator[ChunkSource]:
    """Open the origin that a task's description names; raises Malformed, Refused.

    With this user's credentials only *as_user*.
    """
    fence.check(_place(where, client))
    yield OriginChunks(Retrying(_origin(where, client, as_user=as_user), deadline=patience))


def _place(where: str, client: Client) -> Url:
    """Return the url at which an origin is asked."""
    if is_remote(where):
        return Url.parse(where)
    return _registry(where, client, as_user=False).url("")


def _origin(where: str, client: Client, *, as_user: bool) -> Origin:
    if is_remote(where):
        return HttpOrigin(where, client)
    return RegistryOrigin(_registry(where, client, as_user=as_user))


def _registry(where: str, client: Client, *, as_user: bool) -> Registry:
    plain = where.startswith(_PLAIN)
    if not plain and not where.startswith(_SECURE):
        raise Malformed(f"not an origin that a seed can read: {where[:100]!r}")
    named = Reference.parse(where.removeprefix(_PLAIN if plain else _SECURE))
    who = Credentials.of(os.environ) if as_user else None
    return Registry(named, client, credentials=who, plain_http=plain)


def _anonymous(client: Client, where: str) -> Registry | None:
    """Return the registry at *where*, asked as nobody; None where there is no registry."""
    return None if is_remote(where) else _registry(where, client, as_user=False)


def _registry_of(client: Client, url: Url) -> Ask | None:
    """Return how the registry that *url* is a blob of gives it to anybody; None elsewhere."""
    blob = _BLOB.fullmatch(url.target)
    if blob is None:
        return None
    named = Reference(url.authority, blob[1])
    return Registry(named, client, plain_http=url.scheme == "http").ask


def listed(cache: BlobCache) -> Sequence[str]:
    """Return the names of the blobs in the cache that all images share."""
    shared = cache.root / "blobs"
    return [place.name for place in cache.places() if place.folder == shared]


async def share_all(swarm: Swarm, cache: BlobCache, every: float) -> None:
    """Offer what lies in the cache, and what comes, looking again and again."""
    sharing = Sharing(swarm, cache)
    try:
        while True:
            for name in await trio.to_thread.run_sync(partial(listed, cache)):
                await sharing.share(name)
            await trio.sleep(every)
    finally:
        await sharing.close()


async def scheduling(listen: str, limits: Limits, safety: Safety, metrics_at: str) -> None:
    """Be a scheduler until cancelled."""
    service = Service(Settings(limits=limits))
    hello = Hello(wire.OLDEST, wire.NEWEST, secrets.token_bytes(16), Role.SCHEDULER.value)
    secured = security(safety)
    gate = Gate(secured, hello, service.serve)
    async with _metered(metrics_at, secured, None, service), trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        address = await nursery.start(Tcp(secured).listen, listen, gate.admit)
        click.echo(f"scheduling at {address}")


async def peering(setup: Setup, membership: Membership, cache_limit: int | None) -> None:
    """Serve the cache until cancelled."""
    with closing(BlobCache(setup.cache, limit=cache_limit)) as cache:
        async with in_swarm(membership, cache) as swarm:
            assert swarm is not None
            click.echo(f"uploading at {swarm.address}")
            await share_all(swarm, cache, LOOKED_AGAIN)


@dataclass(frozen=True, slots=True)
class Reads:
    """What a seed reads for others."""

    origins: tuple[UrlPattern, ...] = ()
    """Only these; none: any but this machine's own and the link's."""
    as_user: bool = False
    """With this user's credentials, for who may read the same."""


def _stays_here(membership: Membership) -> bool:
    """Say whether only this machine can reach a host: what listens here, is here anyway."""
    return is_loopback(split(membership.listen or membership.schedulers[0])[0])


async def seeding(
    setup: Setup, membership: Membership, cache_limit: int | None, reads: Reads
) -> None:
    """Be a seed until cancelled."""
    as_user = reads.as_user
    client, fence = fenced_client(setup, reads.origins, local=_stays_here(membership))
    with closing(BlobCache(setup.cache, limit=cache_limit)) as cache, client:
        patience = setup.patience
        origins = partial(seeded, client=client, fence=fence, patience=patience, as_user=as_user)
        async with in_swarm(membership, cache, Role.SEED) as swarm, trio.open_nursery() as nursery:
            assert swarm is not None
            admission = Admission(partial(_anonymous, client)) if as_user else None
            admits = admission.admits if admission else None
            seeding = Seeding(cache, swarm.holdings, origins, admits)
            await nursery.start(seeding.run)
            asking = partial(_registry_of, client)
            files = FileSeeding(cache, swarm, client, asking, fence.check)
            await nursery.start(files.run)
            swarm.seeding(ByKind(seeding, files))
            click.echo(f"seeding at {swarm.address}")
