"""The snapshots service of containerd's API, on a unix socket.

grpc's threads take the requests and hand each to the event loop. Their number bounds how many are
under way; some wait for registries, each no longer than its deadline.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import grpc
import trio

from fusefs.containerd.messages import (
    Commit,
    Empty,
    Listed,
    ListSnapshots,
    Mounts,
    Named,
    Prepare,
    SnapshotInfo,
    Stat,
    Timestamp,
    UpdateSnapshot,
)
from fusefs.containerd.messages import Usage as UsageMessage
from fusefs.containerd.service import Method, handler, streaming, unary
from fusefs.errors import (
    BadRequest,
    FusefsError,
    MountFailed,
    NoSnapshot,
    NotInThisState,
    SnapshotExists,
)

from .claims import clear
from .snapshots import Change, Snapshot
from .snapshotstore import is_full
from .snapshotter import Snapshotter

logger = logging.getLogger(__name__)

T = TypeVar("T")

SERVICE = "containerd.services.snapshots.v1.Snapshots"

_THREADS = 128
_WAITING = 1024
"""Requests beyond which a client is told to come back."""

_BATCH = 100
"""Snapshots in a message of List."""

_GRACE = 5.0
"""Seconds that requests under way get when the service ends."""

_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (NoSnapshot, grpc.StatusCode.NOT_FOUND),
    (SnapshotExists, grpc.StatusCode.ALREADY_EXISTS),
    (NotInThisState, grpc.StatusCode.FAILED_PRECONDITION),
    (BadRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (MountFailed, grpc.StatusCode.UNAVAILABLE),
    (FusefsError, grpc.StatusCode.UNKNOWN),
    (sqlite3.OperationalError, grpc.StatusCode.UNAVAILABLE),
    (OSError, grpc.StatusCode.UNAVAILABLE),
    (trio.RunFinishedError, grpc.StatusCode.UNAVAILABLE),
)
"""The first that fits answers; anything else is a bug."""


@asynccontextmanager
async def serving(snapshotter: Snapshotter, address: Path) -> AsyncIterator[None]:
    """Answer requests at the socket *address* while the block lasts.

    A socket that nobody listens at is replaced. Raises FusefsError where it cannot be had.
    """
    await trio.to_thread.run_sync(clear, address)
    options = [("grpc.so_reuseport", 0)]
    server = grpc.server(
        ThreadPoolExecutor(_THREADS, "snapshots"), options=options, maximum_concurrent_rpcs=_WAITING
    )
    methods = _Requests(snapshotter, trio.lowlevel.current_trio_token()).methods()
    server.add_generic_rpc_handlers([handler(SERVICE, methods, _translated)])
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{address}")
    except RuntimeError as exc:
        raise MountFailed(f"{address}: cannot listen: {exc}") from exc
    finally:
        os.umask(before)
    server.start()
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            stopped = server.stop(_GRACE)
            await trio.to_thread.run_sync(stopped.wait, _GRACE + 1)
        await trio.to_thread.run_sync(partial(address.unlink, missing_ok=True))


def _is_full(exc: Exception) -> bool:
    if isinstance(exc, sqlite3.Error):
        return is_full(exc)
    return isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT)


def _translated(exc: Exception) -> tuple[grpc.StatusCode, str]:
    if _is_full(exc):
        logger.error("a request failed: the disk is full: %s", exc)
        return grpc.StatusCode.RESOURCE_EXHAUSTED, f"the disk is full: {exc}"
    for kind, code in _CODES:
        if isinstance(exc, kind):
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN):
                logger.error("a request failed: %s: %s", type(exc).__name__, exc)
            return code, str(exc)
    logger.error("this is a bug in naiad", exc_info=exc)
    return grpc.StatusCode.INTERNAL, f"{type(exc).__name__}: {exc} (a bug in naiad)"


class _Requests:
    """The methods, each called in a thread that is not the event loop's."""

    def __init__(self, snapshotter: Snapshotter, token: trio.lowlevel.TrioToken) -> None:
        self._snapshotter = snapshotter
        self._token = token

    def methods(self) -> dict[str, Method]:
        """Return them by name."""
        return {
            "Prepare": unary(Prepare, self.prepare),
            "View": unary(Prepare, self.view),
            "Mounts": unary(Named, self.mounts),
            "Commit": unary(Commit, self.commit),
            "Remove": unary(Named, self.remove),
            "Stat": unary(Named, self.stat),
            "Update": unary(UpdateSnapshot, self.update),
            "List": streaming(ListSnapshots, self.list),
            "Usage": unary(Named, self.usage),
            "Cleanup": unary(Named, self.cleanup),
        }

    def prepare(self, asked: Prepare) -> Mounts:
        """Make a snapshot to write to."""
        work = self._snapshotter.prepare
        return Mounts(self._run(work, asked.key, asked.parent, asked.labels))

    def view(self, asked: Prepare) -> Mounts:
        """Make a snapshot to read."""
        work = self._snapshotter.view
        return Mounts(self._run(work, asked.key, asked.parent, asked.labels))

    def mounts(self, asked: Named) -> Mounts:
        """Say how to mount it."""
        return Mounts(self._run(self._snapshotter.mounts, asked.key))

    def commit(self, asked: Commit) -> Empty:
        """Commit an active snapshot."""
        work = self._snapshotter.commit
        self._run(work, asked.key, asked.name, asked.parent, asked.labels)
        return Empty()

    def remove(self, asked: Named) -> Empty:
        """Remove a snapshot."""
        self._run(self._snapshotter.remove, asked.key)
        return Empty()

    def stat(self, asked: Named) -> Stat:
        """Tell of a snapshot."""
        return Stat(_info(self._run(self._snapshotter.stat, asked.key)))

    def update(self, asked: UpdateSnapshot) -> Stat:
        """Change a snapshot's labels."""
        info = asked.info or SnapshotInfo()
        change = Change(info.labels, asked.update_mask.paths if asked.update_mask else ())
        return Stat(_info(self._run(self._snapshotter.update, info.name, change)))

    def list(self, asked: ListSnapshots) -> Iterator[Listed]:
        """Tell of all snapshots that are wanted."""
        found = map(_info, self._run(self._snapshotter.listed, asked.filters))
        while batch := tuple(itertools.islice(found, _BATCH)):
            yield Listed(batch)

    def usage(self, asked: Named) -> UsageMessage:
        """Tell what a snapshot takes."""
        usage = self._run(self._snapshotter.usage, asked.key)
        return UsageMessage(usage.size, usage.inodes)

    def cleanup(self, asked: Named) -> Empty:
        """Remove what belongs to no snapshot."""
        self._run(self._snapshotter.cleanup)
        return Empty()

    def _run(self, work: Callable[..., Awaitable[T]], *arguments: object) -> T:
        try:
            return trio.from_thread.run(work, *arguments, trio_token=self._token)
        except trio.Cancelled as exc:
            raise MountFailed("the snapshotter ends") from exc


def _info(snapshot: Snapshot) -> SnapshotInfo:
    return SnapshotInfo(
        snapshot.key,
        snapshot.parent,
        snapshot.kind,
        Timestamp.of(snapshot.created),
        Timestamp.of(snapshot.updated),
        snapshot.labels,
    )
