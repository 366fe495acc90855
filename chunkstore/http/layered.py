"""Layered: TLS over any wire, as it is needed through a proxy that is itself reached by TLS."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TypeVar

from chunkstore.digest import Buffer

from .wire import Wire

T = TypeVar("T")

_RECEIVE = 64 << 10


class LayeredTls:
    """A wire that is TLS on another one."""

    def __init__(self, under: Wire, context: ssl.SSLContext, host: str) -> None:
        self._under = under
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._buffer = memoryview(bytearray(_RECEIVE))

    async def shake_hands(self) -> None:
        """Agree on keys and check the server's certificate; raises ssl.SSLError."""
        await self._do(self._tls.do_handshake)

    async def send(self, data: Buffer) -> None:
        """Send all of *data*."""
        rest = memoryview(data)
        while rest:
            rest = rest[await self._do(lambda part=rest[:_RECEIVE]: self._tls.write(part)) :]  # type: ignore[misc]

    async def receive_into(self, into: memoryview, *, certain: bool = False) -> int:
        """Receive at least one byte into *into*; return how many, 0 when there will be none."""
        try:
            return await self._do(lambda: self._tls.read(len(into), into))  # type: ignore[arg-type, return-value]
        except ssl.SSLZeroReturnError:
            return 0

    def is_quiet(self) -> bool:
        """Say whether nothing is there to be read."""
        return not self._incoming.pending and self._under.is_quiet()

    def close(self) -> None:
        """Hang up."""
        self._under.close()

    async def _do(self, step: Callable[[], T]) -> T:
        """Do *step*, carrying what TLS has to say and wants to hear meanwhile."""
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                await self._flush()
                count = await self._under.receive_into(self._buffer)
                if count:
                    self._incoming.write(self._buffer[:count])
                else:
                    self._incoming.write_eof()
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._under.send(self._outgoing.read())
