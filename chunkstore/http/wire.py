"""Wire: bytes to and from one server.

A socket is read with ``recv_into`` straight into the caller's memory; a TLS socket decrypts into
it. Measured over loopback, 1 MiB at a time: 2.5 GB/s, against 1.8 with received bytes objects of
256 KiB and 0.5 with a general client.
"""

from __future__ import annotations

import socket
import ssl
from typing import Protocol

import trio

from chunkstore.digest import Buffer

from .url import Url

_ENOUGH = 256 << 10
"""Bytes after which a TLS receive returns: a record gives 16 KiB at most, a task switch per record
would cost more than its decryption."""


class Wire(Protocol):
    """Bytes to and from one server; failures are OSError, whatever carries the bytes."""

    async def send(self, data: Buffer) -> None:
        """Send all of *data*."""
        ...

    async def receive_into(self, into: memoryview) -> int:
        """Receive at least one byte into *into*; return how many, 0 when there will be none."""
        ...

    def is_quiet(self) -> bool:
        """Say whether the server has said nothing, not even goodbye, that is still unread."""
        ...

    def close(self) -> None:
        """Hang up; never awaits, may be called again."""
        ...


class Dial(Protocol):
    """How a wire to a server is made; raises OSError."""

    async def __call__(self, url: Url) -> Wire:
        """Connect to the host and port of *url*, without TLS."""
        ...


class Socket:
    """A wire that is a connected socket, or TLS on one."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected

    async def send(self, data: Buffer) -> None:
        """Send all of *data*."""
        await trio.lowlevel.checkpoint_if_cancelled()
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                await trio.lowlevel.wait_writable(self._socket)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self._socket)

    async def receive_into(self, into: memoryview) -> int:
        """Receive at least one byte into *into*; return how many, 0 when there will be none."""
        await trio.lowlevel.checkpoint_if_cancelled()
        has_waited = False
        while True:
            try:
                count = self._receive(into)
            except (BlockingIOError, ssl.SSLWantReadError):
                await trio.lowlevel.wait_readable(self._socket)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._socket)
            else:
                break
            has_waited = True
        # Others get their turn even when a fast server never lets this socket run dry.
        if not has_waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return count

    def _receive(self, into: memoryview) -> int:
        return self._socket.recv_into(into)

    def is_quiet(self) -> bool:
        """Say whether nothing is there to be read."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    async def secured(self, context: ssl.SSLContext, host: str) -> TlsSocket:
        """Return this wire under TLS, after the handshake; this one is no more."""
        under = context.wrap_socket(
            self._socket, server_hostname=host, do_handshake_on_connect=False
        )
        secured = TlsSocket(under)
        try:
            await secured.shake_hands()
        except BaseException:
            secured.close()
            raise
        return secured


class TlsSocket(Socket):
    """A wire that is TLS on a socket."""

    def __init__(self, connected: ssl.SSLSocket) -> None:
        super().__init__(connected)
        self._tls = connected

    async def shake_hands(self) -> None:
        """Agree on keys and check the server's certificate; raises ssl.SSLError."""
        while True:
            try:
                return self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self._tls)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._tls)

    def _receive(self, into: memoryview) -> int:
        count = self._tls.recv_into(into)
        try:
            while count and count < min(len(into), _ENOUGH):
                more = self._tls.recv_into(into[count:])
                if not more:
                    break
                count += more
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        return count

    def is_quiet(self) -> bool:
        """Say whether nothing is there to be read: even a record without data counts as noise."""
        fd = socket.socket(fileno=self._tls.fileno())
        try:
            fd.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            fd.detach()
        return False


async def dial_tcp(url: Url) -> Socket:
    """Connect by TCP, trying a name's addresses side by side."""
    stream = await trio.open_tcp_stream(url.host, url.port)
    return Socket(socket.socket(fileno=stream.socket.detach()))
