"""The daemon: one pyfuse3 session, the control socket, and what fetches ahead.

Tasks, all in the nursery of `serve`: the session's (pyfuse3 starts one per waiting request), the
heart, the supervisor's listener, the control socket's, one sweep for `Bareness`, those that fill
the page cache. The session's end, when the mount is gone, cancels the others.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field

import pyfuse3
import trio

from chunkstore import ChunkstoreError
from rafs import RafsError

from .bareness import Bareness
from .control import MAX_LINE, Command, Reply, decode_request, encode
from .errors import FusefsError
from .mounting.shown import Shown
from .mounting.supervisor import Handoff
from .mounting.vitals import Vitals
from .operations import Operations
from .pagecache.push import PageCache
from .translation import Translation
from .turns import take_turns
from .vfs import Vfs

logger = logging.getLogger(__name__)

MAX_TASKS = 4096
"""Requests that may be under way; above what the kernel lets be (`fusefs.mounting.device`), so that
a request for metadata always finds a task."""

IDLE_TASKS = 16
"""Tasks that are kept when few requests come."""

_BEAT = 1.0
"""Seconds."""

_CALLERS = 16
"""Callers of the control socket served at once; the others wait in its queue."""

_CALLER_PATIENCE = 5.0
"""Seconds that a caller gets for its line."""

_WORK_PATIENCE = 60.0
"""Seconds that what a caller asks for may take."""

_MESSAGE = 1 << 15
"""Bytes of a message on the channel to the supervisor."""

_EXPECTED = (FusefsError, ChunkstoreError, RafsError, OSError)


Work = Callable[[bytes], Awaitable[Mapping[str, object]]]
"""Does what a caller asks, given the argument as JSON."""


@dataclass(frozen=True, slots=True)
class Wired:
    """What a daemon serves."""

    vfs: Vfs
    """The wiring may add images to it, and remove them, while it is served."""
    statistics: Callable[[], Mapping[str, object]]
    """What ``status`` says beyond what this package knows, ready for JSON."""
    shown: Shown = field(default_factory=Shown)
    """How users are to see it: as every daemon of the mount says."""
    commands: Mapping[Command, Work] = field(default_factory=dict)
    """What callers of the control socket may ask for beyond status and stop."""


Wire = Callable[[], AbstractAsyncContextManager[Wired]]
"""Makes what is served, runs its tasks, and takes it down."""


def run_daemon(handoff: Handoff, wire: Wire, *expected: type[Exception]) -> None:
    """Serve a mount until it is unmounted; for the process that a supervisor forked.

    *expected* are errors of *wire*'s own that are no bugs.
    """
    try:
        trio.run(serve, handoff, wire)
    except Exception as exc:
        error = _plain(exc)
        if isinstance(error, (*_EXPECTED, *expected)):
            why = _words(error)
            logger.error("%s", why)
        else:
            logger.error("this is a bug in naiad", exc_info=exc)
            why = f"internal error: {type(error).__name__}: {error}"
        with suppress(OSError):
            handoff.channel.send(f"failed {why}".encode()[:_MESSAGE])
        raise SystemExit(1) from exc


def _words(error: BaseException) -> str:
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def _plain(error: BaseException) -> BaseException:
    """Return what a nursery wrapped, where it is one error alone."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def serve(handoff: Handoff, wire: Wire) -> None:
    """Serve what *wire* makes until the mount is gone or the supervisor says stop."""
    handoff.vitals.live(time.monotonic())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_beat, handoff.vitals)
        async with wire() as wired:
            await _Session(handoff, wired).run()
        nursery.cancel_scope.cancel()


async def _beat(vitals: Vitals) -> None:
    while True:
        vitals.live(time.monotonic())
        await trio.sleep(_BEAT)


class _Session:
    """One daemon's time with the kernel."""

    def __init__(self, handoff: Handoff, wired: Wired) -> None:
        self._handoff = handoff
        self._wired = wired
        self._channel = trio.socket.from_stdlib_socket(handoff.channel)
        self._vfs = wired.vfs
        self._pagecache = PageCache(self._vfs)
        self._translation = Translation()
        self._bareness = Bareness(self._vfs.trees) if self._vfs.fixed else None
        self._connected = trio.Event()
        self._started = time.monotonic()
        self._over = trio.CancelScope()
        self._operations = Operations(
            self._vfs,
            self._pagecache,
            handoff.vitals,
            self._translation,
            self._bareness or _never,
            self._take_device,
        )

    async def run(self) -> None:
        take_turns()
        pyfuse3.init(self._operations, f"/dev/fd/{self._handoff.init}", set())
        gc.collect()
        # What was made by now stays: the collector need not look at it again.
        gc.freeze()
        with self._over:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._announce)
                nursery.start_soon(self._obey)
                if self._bareness is not None:
                    nursery.start_soon(self._bareness.run)
                nursery.start_soon(self._pagecache.run)
                nursery.start_soon(self._operations.disk.run)
                nursery.start_soon(self._answer_callers, nursery)
                await pyfuse3.main(IDLE_TASKS, MAX_TASKS)
                self._over.cancel()

    def _take_device(self) -> None:
        # trio's wait for the handle goes on to mean the device only because this happens before
        # it begins to wait anew.
        os.dup2(self._handoff.device, self._handoff.init, inheritable=False)
        os.close(self._handoff.device)
        self._connected.set()

    async def _announce(self) -> None:
        # This task's turn comes when the one that handles INIT waits again, so after the reply.
        await self._connected.wait()
        with suppress(OSError):
            await self._channel.send(b"ready " + self._wired.shown.encode())

    async def _obey(self) -> None:
        """End when the supervisor says so; if it dies, go on alone."""
        with suppress(OSError):
            if await self._channel.recv(_MESSAGE):
                self._over.cancel()
                return
        self._channel.close()
        logger.warning("the supervisor died: this daemon is the mount's last")

    async def _ask_to_stop(self) -> None:
        try:
            await self._channel.send(b"stop")
        except OSError:
            self._over.cancel()

    async def _answer_callers(self, nursery: trio.Nursery) -> None:
        limit = trio.CapacityLimiter(_CALLERS)
        control = trio.socket.from_stdlib_socket(self._handoff.control)
        while True:
            async with limit:
                caller, _ = await control.accept()
            nursery.start_soon(self._answer, caller, limit)

    async def _answer(self, caller: trio.socket.SocketType, limit: trio.CapacityLimiter) -> None:
        gone = (OSError, trio.BrokenResourceError)
        with caller, suppress(*gone), trio.move_on_after(_WORK_PATIENCE):
            async with limit:
                line = b""
                with trio.move_on_after(_CALLER_PATIENCE):
                    line = await _line(caller)
                # Who says nothing only wanted to know whether anybody listens.
                if line:
                    await trio.SocketStream(caller).send_all(encode(await self._reply(line)))

    async def _reply(self, line: bytes) -> Reply:
        request = decode_request(line)
        if isinstance(request, Reply):
            return request
        if request.command is Command.STOP:
            await self._ask_to_stop()
            return Reply({})
        if request.command is Command.STATUS:
            return Reply(self._status())
        work = self._wired.commands.get(request.command)
        if work is None:
            return Reply(error=f"this mount cannot {request.command.value}")
        try:
            return Reply(await work(bytes(request.argument)))
        except _EXPECTED as exc:
            return Reply(error=str(exc) or type(exc).__name__)
        except Exception as exc:  # no question ends a mount
            logger.exception("this is a bug in naiad")
            return Reply(error=f"internal error: {type(exc).__name__}")

    def _status(self) -> Mapping[str, object]:
        handoff, facts = self._handoff, dict(self._wired.statistics())
        uptime = time.monotonic() - self._started
        faults = (
            (facts.get("last_error_at"), facts.get("last_error")),
            (self._translation.last_error_at, self._translation.last_error),
            (time.time() - uptime, handoff.last_death),
        )
        last_error_at, last_error = _latest(faults)
        return facts | {
            "daemon": os.getpid(),
            "restarts": handoff.restarts,
            "last_death": handoff.last_death,
            "uptime": round(uptime, 1),
            "answered": handoff.vitals.answered,
            "waiting_reads": self._vfs.waiting,
            "reads": self._pagecache.reads,
            "reads_ahead": self._operations.disk.served,
            "reads_ahead_wasted": self._operations.disk.wasted,
            "pushes": self._pagecache.pushes,
            "pushed_bytes": self._pagecache.pushed,
            "last_error": last_error,
            "last_error_at": last_error_at,
        }


def _latest(faults: Iterable[tuple[object, object]]) -> tuple[float, str]:
    """Return the last of what went wrong, by times of the day; 0 and empty where nothing did."""
    found = [(at, text) for at, text in faults if isinstance(at, float) and isinstance(text, str)]
    return max(((at, text) for at, text in found if text), default=(0.0, ""))


def _never() -> bool:
    """Say that images with extended attributes may yet come."""
    return False


async def _line(caller: trio.socket.SocketType) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < MAX_LINE:
        more = await caller.recv(1 << 16)
        if not more:
            break
        line += more
    return line
