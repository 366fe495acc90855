"""Which driver shows an image, as far as the image decides: the kernel is asked elsewhere."""

from __future__ import annotations

import trio

from chunkstore import Digest
from fusefs.blobfiles import BlobFiles
from fusefs.mounting.shown import Shown
from fusefs.pagecache.models import is_mostly_models
from rafs import BadImage, Bootstrap
from rafs.check import findings

from .bootstraps import Bootstraps
from .precheck import Precheck

MODEL = "models load faster through the page cache that the fuse driver fills"
"""Measured by tests/bench/models.py: EROFS reads a megabyte ahead at most, and who faults waits."""


async def choose(
    driver: str,
    bootstrap: Bootstrap,
    digest: Digest,
    kept: Bootstraps,
    precheck: Precheck | None = None,
) -> Shown:
    """Return how to show an image where *driver*, ``auto`` or ``erofs``, may be chosen.

    *precheck* may be checking it already. Raises BadImage where ``erofs`` was asked for and cannot
    be had.
    """
    if driver == "auto" and is_mostly_models(bootstrap):
        return Shown("fuse", MODEL)
    why = _misfit(bootstrap) or await _fault(bootstrap, digest, kept, precheck)
    if why and driver == "erofs":
        raise BadImage(f"the EROFS driver cannot show it: {why}")
    if why:
        return Shown("fuse", why)
    reason = "asked for" if driver == "erofs" else "the kernel and the image allow it"
    return by_erofs(bootstrap, digest, kept, reason)


def by_erofs(bootstrap: Bootstrap, digest: Digest, kept: Bootstraps, reason: str = "") -> Shown:
    """Return how to show an image that was found to fit."""
    path, devices = str(kept.path(digest)), tuple(BlobFiles(bootstrap).names)
    return Shown("erofs", reason, path, devices)


def _misfit(bootstrap: Bootstrap) -> str:
    if bootstrap.version != 6:
        return f"RAFS v{bootstrap.version} is not EROFS"
    if not bootstrap.blobs:
        return "the image has no data"
    return ""


async def _fault(
    bootstrap: Bootstrap, digest: Digest, kept: Bootstraps, precheck: Precheck | None
) -> str:
    """Say what is wrong with metadata that the kernel would read; looked for once per image."""
    if kept.is_checked(digest):
        return ""
    if precheck is None or not await trio.to_thread.run_sync(precheck.vouches_for, digest):
        found = await trio.to_thread.run_sync(lambda: next(findings(bootstrap), None))
        if found is not None:
            return f"its metadata is not fit for the kernel: {found}"
    kept.note_checked(digest)
    return ""
