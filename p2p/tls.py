"""TlsStream: TLS over any stream, whose refusals reach the other side and are told in words.

trio's own does not send the alert of a handshake that failed, so that whoever is refused never
learns why; nor does it receive into the caller's memory.

Tasks: one may send while another receives. ``_flushing`` keeps records in their order.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import trio

from chunkstore import Buffer

from .errors import Untrusted

_RECEIVE = 256 << 10
"""Bytes taken from below at once: a record is 16 KiB, a task switch costs as much as decrypting."""

_SEND = 256 << 10
"""Bytes encrypted before they are handed down; bounds what lies in memory twice."""

_FAREWELL = 1.0
"""Seconds for an alert to leave."""

_ALERTS = (
    ("UNKNOWN_CA", "it does not know the CA of our certificate"),
    ("CERTIFICATE_EXPIRED", "our certificate has expired"),
    ("CERTIFICATE_REQUIRED", "it wants a certificate and we have none"),
    ("DID_NOT_RETURN_A_CERTIFICATE", "it has no certificate"),
    ("UNSUPPORTED_CERTIFICATE", "our certificate is not for this use"),
    ("BAD_CERTIFICATE", "it refuses our certificate"),
    ("CERTIFICATE_UNKNOWN", "it refuses our certificate"),
    ("PROTOCOL_VERSION", "it does not speak TLS 1.3"),
    ("UNSUPPORTED_PROTOCOL", "it does not speak TLS 1.3"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS"),
    ("HTTP_REQUEST", "it does not speak TLS"),
)
"""OpenSSL's reasons, by a part of their names, and what they mean to the one who sees them."""


class TlsStream(trio.abc.Stream):
    """A secured stream, after ``shake_hands``."""

    def __init__(self, under: trio.abc.Stream, context: ssl.SSLContext, *, server: bool) -> None:
        self._under = under
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self._flushing = trio.Lock()

    async def shake_hands(self) -> Mapping[str, object]:
        """Agree on keys; return the other side's verified certificate.

        Raises Untrusted, or trio.BrokenResourceError when the other side has gone.
        """
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
            except ssl.SSLError as exc:
                await self._part()
                raise meaning(exc) from exc
        await self._flush()
        return self._tls.getpeercert() or {}

    async def send_all(self, data: Buffer) -> None:
        """Send all of *data*."""
        with memoryview(data) as view, view.cast("B") as rest:
            for start in range(0, len(rest), _SEND):
                try:
                    self._tls.write(rest[start : start + _SEND])
                except ssl.SSLError as exc:
                    raise meaning(exc) from exc
                await self._flush()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the stream below takes more."""
        async with self._flushing:
            await self._under.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive at least one byte; none at the end. Raises Untrusted as ``receive_into``."""
        into = bytearray(max_bytes or _RECEIVE)
        count = await self.receive_into(memoryview(into))
        return bytes(memoryview(into)[:count])

    async def receive_into(self, into: memoryview) -> int:
        """Receive at least one byte; return how many, 0 at the end.

        Raises Untrusted when the other side refuses us, which the dialler learns here.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                count = self._take(into)
            except ssl.SSLWantReadError:
                if self._outgoing.pending:
                    await self._flush()
                await self._feed()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return 0
            except ssl.SSLError as exc:
                await self._part()
                raise meaning(exc) from exc
            else:
                return count

    async def aclose(self) -> None:
        """Close the stream below; frames say how long they are, so no goodbye is needed."""
        await self._under.aclose()

    def _take(self, into: memoryview) -> int:
        """Decrypt what has arrived, as far as there is room."""
        count = self._decrypt(into)
        try:
            while 0 < count < len(into) and (more := self._decrypt(into[count:])):
                count += more
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass  # the next call says it again
        return count

    def _decrypt(self, into: memoryview) -> int:
        return int(self._tls.read(len(into), into))

    async def _feed(self) -> None:
        data = await self._under.receive_some(_RECEIVE)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        async with self._flushing:
            while data := self._outgoing.read():
                await self._under.send_all(data)

    async def _part(self) -> None:
        """Let the alert leave that tells the other side why."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _FAREWELL):
            try:
                await self._flush()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return


def meaning(exc: ssl.SSLError) -> Exception:
    """Return what a failure of TLS means: Untrusted, or a connection that broke."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return Untrusted(f"its certificate is not trusted: {exc.verify_message}")
    reason = exc.reason or ""
    for part, words in _ALERTS:
        if part in reason:
            return Untrusted(words)
    said = reason.replace("_", " ").lower() or str(exc)
    return trio.BrokenResourceError(f"TLS: {said}")
