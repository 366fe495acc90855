"""Line: the bytes of one connection between two hosts, plain or under TLS.

Bodies are received straight into the caller's memory. A plain line passes pieces on from the cache
file without copying them (sendfile); under TLS they are read, encrypted and sent.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import trio

from chunkstore import Buffer

from .errors import Gone
from .security import Remote, Role, Security
from .tls import TlsStream

DIAL = 5.0
"""Seconds until a host that does not answer is given up."""

UNSENT = 256 << 10
"""Bytes that the kernel takes beyond what is on its way: what waits there cannot be overtaken by a
reader's piece. 1 GiB over loopback takes as long as without the bound."""

STEP = 1 << 20
"""Bytes of one sendfile."""

LOCKED = 0.005
"""Seconds until a file that an evictor has locked is tried again."""

GATHERED = 128 << 10
"""Bytes of a body that are waited for together: over a link of 100 Mbit/s they come in packets, and
a task switch for each of them costs more than all else that is done with a piece."""

RETRIED, UNANSWERED = 1000, 30_000
"""Milliseconds after which the kernel sends again at the latest what nobody acknowledges, and until
it gives up. It waits twice as long each time, so that after ten seconds without a way a connection
stood still for up to six more."""

_SLICE = 256 << 10
"""Bytes sent at once where they are copied; progress is seen in steps of so many."""


class Passage(Protocol):
    """A range of a file that is to be sent."""

    size: int

    def pass_on(self, out: int, done: int, size: int) -> int:
        """Send bytes from *done* on to the socket *out* and return how many; never waits.

        0 where the file is locked for a moment. Raises BlockingIOError where the socket has no
        room, Gone where the bytes are not there any more.
        """
        ...

    def copy(self, done: int, size: int) -> Buffer:
        """Return *size* bytes from *done* on, none where the file is locked; raises Gone."""
        ...


class Line(Protocol):
    """Bytes to and from another host; failures are OSError, Untrusted or Gone."""

    sent: int
    """Bytes so far; by it a line that does not move is noticed."""
    received: int

    async def send(self, data: Buffer, *, more: bool = False) -> None:
        """Send all of *data*; with *more* it may wait for what is sent next, at once."""
        ...

    async def send_file(self, passage: Passage) -> None:
        """Send all of *passage*."""
        ...

    async def receive_into(self, into: memoryview) -> int:
        """Receive at least one byte; return how many, 0 when there will be none."""
        ...

    async def fill(self, into: memoryview) -> None:
        """Receive as many bytes as there is room for; raises Gone when there will not be."""
        ...


class PlainLine:
    """A line that is a connected socket.

    Most frames are small and find room at once, and little is there to be received when it is
    looked for again. By trio's own means a frame that is sent costs a turn of the event loop, and
    one that is received an exception. So what there is room for is sent without giving up the turn,
    and after all was taken that was there, readiness is waited for first.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = stream.socket
        self._least = 1
        """Bytes that must be there before the kernel wakes us."""
        self._drained = True
        """Nothing was left when last received."""
        self.sent = self.received = 0

    async def send(self, data: Buffer, *, more: bool = False) -> None:
        """Send all of *data*; with *more* it may wait for what is sent next, at once."""
        if more:
            await self._send(memoryview(data), socket.MSG_MORE)
            return
        with memoryview(data) as rest:
            done, out = 0, self._socket.fileno()
            while done < len(rest):
                try:
                    count = os.write(out, rest[done:])
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._socket)
                    continue
                done += count
                self.sent += count

    async def _send(self, rest: memoryview, flags: int) -> None:
        done = 0
        while done < len(rest):
            count = await self._socket.send(rest[done:], flags)
            done += count
            self.sent += count

    async def receive_into(self, into: memoryview) -> int:
        """Receive at least one byte; return how many, 0 when there will be none."""
        waited = self._drained
        if waited:
            await trio.lowlevel.wait_readable(self._socket)
        while True:
            try:
                count = os.readv(self._socket.fileno(), [into])
                break
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
                waited = True
        self._drained = count < len(into)
        self.received += count
        if not waited:  # a quick sender takes no more turns than others
            await trio.lowlevel.checkpoint()
        return count

    async def fill(self, into: memoryview) -> None:
        """Receive as many bytes as there is room for; raises Gone when there will not be."""
        done, size = 0, len(into)
        try:
            while done < size:
                self._wake_at(min(GATHERED, size - done))
                done += await _some(self, into[done:])
        finally:
            self._wake_at(1)

    def _wake_at(self, least: int) -> None:
        if least != self._least:
            self._least = least
            with suppress(OSError):  # a broken connection is told of by what is received
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)

    async def send_file(self, passage: Passage) -> None:
        """Send *passage* without copying it."""
        await trio.lowlevel.checkpoint_if_cancelled()
        done, out = 0, self._socket.fileno()
        while done < passage.size:
            try:
                count = passage.pass_on(out, done, min(STEP, passage.size - done))
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)
                continue
            if not count:
                await trio.sleep(LOCKED)
            done += count
            self.sent += count


class StreamLine:
    """A line over any stream: TLS, or memory."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.sent = self.received = 0

    async def send(self, data: Buffer, *, more: bool = False) -> None:
        """Send all of *data*."""
        with memoryview(data) as whole:
            for start in range(0, len(whole), _SLICE):
                part = whole[start : start + _SLICE]
                try:
                    await self._stream.send_all(part)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                    raise Gone(f"the connection broke: {exc.__cause__ or exc}") from exc
                self.sent += len(part)

    async def send_file(self, passage: Passage) -> None:
        """Send *passage*, read a slice at a time."""
        done = 0
        while done < passage.size:
            data = passage.copy(done, min(_SLICE, passage.size - done))
            if not data:
                await trio.sleep(LOCKED)
            await self.send(data)
            done += len(data)

    async def receive_into(self, into: memoryview) -> int:
        """Receive at least one byte; return how many, 0 when there will be none."""
        try:
            count = await self._receive(into)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise Gone(f"the connection broke: {exc.__cause__ or exc}") from exc
        self.received += count
        return count

    async def fill(self, into: memoryview) -> None:
        """Receive as many bytes as there is room for; raises Gone when there will not be."""
        done = 0
        while done < len(into):
            done += await _some(self, into[done:])

    async def _receive(self, into: memoryview) -> int:
        if isinstance(self._stream, TlsStream):
            return await self._stream.receive_into(into)
        data = await self._stream.receive_some(len(into))
        into[: len(data)] = data
        return len(data)


async def _some(line: Line, into: memoryview) -> int:
    """Receive at least one byte in the middle of something."""
    count = await line.receive_into(into)
    if not count:
        raise Gone("it hung up in the middle of a frame")
    return count


@asynccontextmanager
async def dialled(
    address: str, security: Security, role: Role | None = None
) -> AsyncIterator[tuple[Line, Remote]]:
    """Connect to *address*, ``HOST:PORT``, whose certificate must say *role*; hang up in the end.

    Raises Gone, Untrusted or Unsafe.
    """
    host, port = split(address)
    security.check(host, to="dial")
    try:
        with trio.fail_after(DIAL):
            stream = await trio.open_tcp_stream(host, port)
    except (OSError, trio.TooSlowError) as exc:
        raise Gone(f"{address} cannot be reached: {exc or 'no answer'}") from exc
    async with stream:
        _tuned(stream)
        try:
            secured, remote = await security.dialled(stream, role)
        except (OSError, trio.BrokenResourceError) as exc:
            raise Gone(f"{address}: no connection: {exc.__cause__ or exc}") from exc
        yield line_over(secured), remote


@asynccontextmanager
async def accepted(
    stream: trio.abc.Stream, security: Security
) -> AsyncIterator[tuple[Line, Remote]]:
    """Secure an accepted connection, which is closed in the end; raises Gone or Untrusted."""
    async with stream:
        _tuned(stream)
        try:
            secured, remote = await security.accepted(stream)
        except (OSError, trio.BrokenResourceError) as exc:
            raise Gone(f"no connection: {exc.__cause__ or exc}") from exc
        yield line_over(secured), remote


def line_over(stream: trio.abc.Stream) -> Line:
    """Return the line over *stream*, which stays the caller's to close."""
    return PlainLine(stream) if isinstance(stream, trio.SocketStream) else StreamLine(stream)


def _tuned(stream: trio.abc.Stream) -> None:
    if isinstance(stream, trio.SocketStream):
        stream.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, UNSENT)
        with suppress(OSError):  # a kernel before 6.15
            stream.setsockopt(socket.IPPROTO_TCP, _RTO_MAX_MS, RETRIED)
            # else the kernel gives up after so many tries, which are soon made now
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED)


def split(address: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[HOST]:PORT``; raises Gone."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise Gone(f"not an address such as HOST:PORT: {address[:100]!r}")
    return host.strip("[]"), int(port)


def joined(host: str, port: int) -> str:
    """Return the address that ``split`` reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
_RTO_MAX_MS = 44
