"""What ``naiad fetch`` is told, and the wiring of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from chunkstore import Digest, Malformed
from chunkstore.blobcache import BlobCache
from chunkstore.bucket import Bucket
from chunkstore.http import Client, Request, Response, Url
from chunkstore.origins.reference import Reference
from chunkstore.origins.url import Ask, UrlFile
from p2p.files.fetching import Fetching
from p2p.files.task import FileTask
from p2p.swarm import Swarm

from .clients import client_of
from .groups import ungrouped
from .image import registry
from .names import is_remote, shown
from .output import human
from .progress import Shown
from .setup import Membership, Setup
from .swarm import in_swarm

_HARMLESS = frozenset({"accept", "accept-language", "user-agent", "referer"})
"""Headers that go wherever a redirect leads; any other may be a credential."""


_ALONE = Membership()


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """What shall be fetched, and how."""

    url: str
    """Of a file, or a blob of a registry: ``HOST/REPO@sha256:…``."""
    output: Path
    setup: Setup
    headers: tuple[tuple[str, str], ...] = ()
    digest: Digest | None = None
    tag: str = ""
    ignored: frozenset[str] = frozenset()
    shared: bool = False
    rate_limit: int | None = None
    """Bytes per second."""
    membership: Membership = _ALONE


def run(request: FetchRequest, shown_by: Shown) -> dict[str, object]:
    """Fetch, and return what there is to tell of it; raises ChunkstoreError or OSError."""
    with ungrouped():
        return trio.run(fetch, request, shown_by)


async def fetch(request: FetchRequest, shown_by: Shown) -> dict[str, object]:
    """Do what ``run`` does."""
    start = trio.current_time()
    membership = request.membership
    if request.rate_limit is not None and membership.download_limit is None:
        membership = replace(membership, download_limit=request.rate_limit)
    cache = BlobCache(request.setup.cache)
    try:
        async with (
            in_swarm(membership, cache) as swarm,
            _fetching(request, cache, swarm, shown_by) as fetching,
        ):
            digest = request.digest or _named(request.url)
            size, how = await fetching.fetch_to(request.output, digest)
    finally:
        cache.close()
    sources = {name: tally.size for name, tally in fetching.ledger.tallies.items()}
    return {
        "url": shown(request.url),
        "output": str(request.output),
        "task": fetching.task.id.hex(),
        "size": size,
        "seconds": round(trio.current_time() - start, 3),
        "bytes": {"cache": 0, "peer": 0, "origin": 0} | sources,
        "written": how,
    }


@asynccontextmanager
async def _fetching(
    request: FetchRequest, cache: BlobCache, swarm: Swarm | None, shown_by: Shown
) -> AsyncIterator[Fetching]:
    bucket = Bucket(request.rate_limit) if request.rate_limit else None
    with client_of(request.setup) as client:
        url, ask = _place(request, client)
        private = frozenset(name.lower() for name, _ in request.headers) - _HARMLESS
        asked = Request("GET", url, request.headers, private=private)
        task = FileTask.of(url, request.headers, request.tag, request.ignored, request.shared)
        file = UrlFile(asked, slowed(ask, bucket) if bucket else ask)
        patience = request.setup.patience

        def moved(done: int, total: int | None) -> None:
            shown_by(done, total, _shares(fetching))

        fetching = Fetching(task, file, cache, patience=patience, moved=moved, swarm=swarm)
        yield fetching


def _named(url: str) -> Digest | None:
    """Return what a registry's blob must hash to, which its name says."""
    return None if is_remote(url) else _reference(url).digest


def _reference(text: str) -> Reference:
    named = Reference.parse(text.removeprefix("oci://"))
    if named.digest is None:
        raise Malformed(f"{named}: name one of its blobs, HOST/REPO@sha256:…")
    return named


def _place(request: FetchRequest, client: Client) -> tuple[Url, Ask]:
    """Return the url of what is named, and how its server is asked."""
    if is_remote(request.url):
        return Url.parse(request.url), client.request
    named = _reference(request.url)
    found = registry(named, client, plain_http=request.setup.plain_http)
    return found.url(f"blobs/{named.digest}"), found.ask


def slowed(ask: Ask, bucket: Bucket) -> Ask:
    """Return *ask* with answers that come no faster than *bucket* allows."""

    @asynccontextmanager
    async def asked(request: Request) -> AsyncIterator[Response]:
        async with ask(request) as response:
            response.slowed(bucket)
            yield response

    return asked


def _shares(fetching: Fetching) -> str:
    """Return in a few words where the bytes came from."""
    sizes = {name: tally.size for name, tally in fetching.ledger.tallies.items() if tally.size}
    whole = sum(sizes.values())
    return ", ".join(f"{size / whole:.0%} {name}" for name, size in sorted(sizes.items()))


def summary(done: Mapping[str, object]) -> str:
    """Return in one line what ``fetch`` did."""
    size, seconds, sources = done["size"], done["seconds"], done["bytes"]
    assert isinstance(size, int)
    assert isinstance(seconds, float)
    assert isinstance(sources, dict)
    shares = ", ".join(f"{human(part)} from {name}" for name, part in sources.items() if part)
    rate = f"{human(size / max(seconds, 0.001))}/s"
    return f"{done['output']}: {human(size)} in {seconds:.1f} s ({rate}): {shares or 'empty'}"
