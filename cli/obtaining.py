"""Obtaining an image's bootstrap: from the cache that keeps it, or a patiently asked origin."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from chunkstore import Digest, Refused, Unreachable
from chunkstore.blobcache import BlobCache
from rafs import BadImage, Bootstrap

from .bootstraps import Bootstraps
from .places import Place
from .setup import Setup

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PAUSES = (0.2, 1.0, 3.0)
"""Seconds before metadata is asked for again: a person waits for it."""

_LONGEST_PAUSE = 10.0
"""Seconds that an origin may ask for at most."""


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
