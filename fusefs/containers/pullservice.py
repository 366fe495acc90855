"""The snapshotter's other socket, at which ``naiad pull`` asks (`fusefs.containers.pulls`)."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import trio

from chunkstore import ChunkstoreError
from fusefs.containerd.client import ContainerdError
from fusefs.errors import FusefsError, MountFailed
from rafs import RafsError

from .claims import clear
from .pulls import MAX_LINE

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PullRequest:
    """What is to be pulled."""

    reference: str
    namespace: str = "default"
    snapshotter: str = "naiad"
    """What containerd calls it."""
    platform: str = ""
    """``OS/ARCHITECTURE[/VARIANT]``; empty: this machine's."""
    user: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)


class PullReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the answer."""

    said: str = ""
    digest: str = ""
    """Of the manifest: it is done."""
    error: str = ""

    def encode(self) -> bytes:
        """Return it as a line."""
        return msgspec.json.encode(self) + b"\n"


Say = Callable[[str], None]
Pull = Callable[[PullRequest, Say], Awaitable[str]]
"""Pulls, says how it goes, and returns the manifest's digest."""

_PULLS = 16
"""At once; others wait in the socket's queue."""

_LINE_PATIENCE = 5.0
"""Seconds for the line that asks."""

_EXPECTED = (FusefsError, ContainerdError, ChunkstoreError, RafsError, OSError)


async def serve_pulls(
    path: Path, pull: Pull, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer callers at *path* for ever; raises MountFailed where that cannot be had."""
    listener = await trio.to_thread.run_sync(_listen, path)
    limit = trio.CapacityLimiter(_PULLS)
    try:
        with trio.socket.from_stdlib_socket(listener) as listening:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    async with limit:
                        caller, _ = await listening.accept()
                    nursery.start_soon(_answer, trio.SocketStream(caller), pull, limit)
    finally:
        _forget(path)


def _listen(path: Path) -> socket.socket:
    clear(path)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
    except OSError as exc:
        listener.close()
        raise MountFailed(f"{path}: cannot listen: {exc.strerror}") from exc
    finally:
        os.umask(before)
    listener.listen(64)
    return listener


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)


async def _answer(caller: trio.SocketStream, pull: Pull, limit: trio.CapacityLimiter) -> None:
    said, heard = trio.open_memory_channel[PullReply](math.inf)  # some lines per layer
    try:
        async with caller, limit, trio.open_nursery() as nursery:
            nursery.start_soon(_pass_on, heard, caller)
            async with said:
                await _pull(caller, pull, said)
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        logger.info("whoever wanted a pull has gone")


async def _pull(
    caller: trio.SocketStream, pull: Pull, said: trio.MemorySendChannel[PullReply]
) -> None:
    with trio.move_on_after(_LINE_PATIENCE):
        line = await _line(caller)
        if not line:
            return
    token = trio.lowlevel.current_trio_token()

    def say(text: str) -> None:
        trio.from_thread.run_sync(said.send_nowait, PullReply(said=text), trio_token=token)

    try:
        request = msgspec.json.decode(line, type=PullRequest)
        said.send_nowait(PullReply(digest=await pull(request, say)))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # The decoder's words could quote what they stumbled over, which may be a secret.
        said.send_nowait(PullReply(error="the request cannot be read"))
    except _EXPECTED as exc:
        said.send_nowait(PullReply(error=" ".join(str(exc).split()) or type(exc).__name__))


async def _pass_on(heard: trio.MemoryReceiveChannel[PullReply], caller: trio.SocketStream) -> None:
    async for reply in heard:
        await caller.send_all(reply.encode())


async def _line(caller: trio.SocketStream) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < MAX_LINE:
        more = await caller.receive_some(MAX_LINE)
        if not more:
            return b""
        line += bytes(more)
    return line
