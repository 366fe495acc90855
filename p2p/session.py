"""Session: one connection between two hosts, from their HELLOs on.

Frames that are posted go out in their order, several in one write; a piece goes out between them,
never inside one. A piece that comes in is received into memory that is kept for the next one.

Tasks: ``run`` opens one nursery with the receiver, the sender and the heart. Who sends, posted
frames or a piece, holds ``_writing`` for the whole of it. The handler's ``heard`` and ``room`` are
called between awaits of the receiver, so no frame is handled while another one is.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from typing import Protocol

import trio

from chunkstore import Buffer, Malformed

from . import wire
from .errors import Gone, Nonsense, Untrusted
from .line import Line, Passage
from .messages import Body, Goodbye, Hello
from .security import Remote, Role
from .wire import HEADER_SIZE, MAGIC, Header, Kind, Request

logger = logging.getLogger(__name__)

GREETING = 5.0
"""Seconds until the other side must have said HELLO."""

QUIET, DEAD = 10.0, 30.0
"""Seconds without a frame until we ask, and until we give up."""

STUCK = 30.0
"""Seconds for which a send may stand still."""

UNREAD = 1 << 20
"""Bytes that wait to be sent above which nothing more is read: answers would only add to them."""

MOST_WAITING = 32 << 20
"""Bytes that may wait to be sent; a session with more is ended."""

COPIED = 32 << 10
"""Bytes up to which a piece is copied and leaves with its header in one packet."""

_BUFFER = 64 << 10
_BEAT = 5.0


class Handler(Protocol):
    """What is done with the frames of one session."""

    def heard(self, header: Header, body: Body | Request | None) -> None:
        """Take a frame; raises Nonsense or Malformed where the other side may not say that."""
        ...

    def room(self, header: Header) -> memoryview | None:
        """Return where the bytes of a PIECE or STATE go; None: they are of no use any more."""
        ...

    async def piece(self, header: Header, data: memoryview) -> None:
        """Take the bytes that came; *data* is the session's again when this returns."""
        ...


class Deaf:
    """A handler that wants neither pieces nor states."""

    def room(self, header: Header) -> memoryview | None:
        """Refuse."""
        raise Nonsense(f"{header.kind.name} that nobody asked for")

    async def piece(self, header: Header, data: memoryview) -> None:
        """Never called."""


class Session:
    """A connection whose both sides have said HELLO."""

    def __init__(self, line: Line, remote: Remote, hello: Hello, early: bytes = b"") -> None:
        """Take over *line*; *early* came behind the other side's HELLO."""
        self.remote = remote
        self.hello = hello
        self._line = line
        self._early = early
        self._posted: deque[bytes] = deque()
        self._waiting = 0
        """Bytes of what is posted."""
        self._work = trio.Event()
        self._room = trio.Event()
        self._writing = trio.Lock()
        self._scope = trio.CancelScope()
        self.ended = trio.Event()
        self.reason = ""
        """Why it ended."""

    def post(self, frame: bytes) -> None:
        """Send *frame* after what was posted before; never waits."""
        self._posted.append(frame)
        self._waiting += len(frame)
        if self._waiting > MOST_WAITING:
            self.end("it does not read what it is sent")
        self._work.set()

    def tell(self, body: Body, request: int = 0) -> None:
        """Post *body* as a frame."""
        self.post(wire.frame(body, request))

    async def send(self, head: bytes, passage: Passage | bytes) -> None:
        """Send a frame's header and its body; raises OSError or Gone."""
        await self._begin_writing()
        try:
            head = self._take_posted() + head  # a packet costs more than all else about a frame
            body = passage if isinstance(passage, bytes) else _small(passage)
            if body:
                await self._line.send(b"".join((head, body)))
            else:
                await self._line.send(head, more=True)
                assert not isinstance(passage, bytes)
                await self._line.send_file(passage)
        finally:
            self._writing.release()
        self._sent()

    def end(self, reason: str = "") -> None:
        """End the session; never waits."""
        self.reason = self.reason or reason
        self._scope.cancel()

    def may(self, role: Role) -> bool:
        """Say whether the other side's certificate carries *role*."""
        return role in self.remote.roles

    async def run(self, handler: Handler) -> None:
        """Serve until either side ends it or the connection breaks; ``reason`` then tells why."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send_posted)
                    nursery.start_soon(self._heart)
                    await self._converse(handler)
                    nursery.cancel_scope.cancel()
        finally:
            self.ended.set()
            self._room.set()
        logger.debug("session ended with=%s reason=%s", self.remote, self.reason)

    async def _converse(self, handler: Handler) -> None:
        """Receive until it is over; say goodbye to who does not keep to the protocol."""
        try:
            await _Receiver(self, self._line, handler, self._early).run()
            self.reason = self.reason or "it hung up"
        except (Nonsense, Malformed) as exc:
            self.reason = self.reason or str(exc)
            with trio.move_on_after(1):
                async with self._writing:
                    await self._try_send(wire.frame(Goodbye("nonsense", str(exc)[:1000])))
        except (OSError, Gone, Untrusted) as exc:
            self.reason = self.reason or str(exc)

    async def _try_send(self, frame: bytes) -> None:
        try:
            await self._line.send(frame)
        except (OSError, Gone, Untrusted) as exc:
            self.end(str(exc))

    async def _send_posted(self) -> None:
        while True:
            await self._work.wait()
            await self._begin_writing()
            try:
                frames = self._take_posted()
                if frames:  # else they went out before a piece
                    await self._try_send(frames)
            finally:
                self._writing.release()
            self._sent()

    async def _begin_writing(self) -> None:
        """Be who writes, until it is released; without giving up the turn where nobody is."""
        try:
            self._writing.acquire_nowait()
        except trio.WouldBlock:
            await self._writing.acquire()

    def _take_posted(self) -> bytes:
        frames = b"".join(self._posted)
        if frames:
            self._posted.clear()
            self._work = trio.Event()  # who waits for the old one is awake by now
        return frames

    def _sent(self) -> None:
        self._waiting = sum(map(len, self._posted))
        self._room.set()

    async def _heart(self) -> None:
        """Ask after silence; end a session that is silent, or stuck in the middle of a send."""
        heard = moved = trio.current_time()
        received, sent = -1, -1
        while True:
            await trio.sleep(_BEAT)
            now = trio.current_time()
            if self._line.received != received:
                received, heard = self._line.received, now
            if self._line.sent != sent or not self._writing.locked():
                sent, moved = self._line.sent, now
            if now - heard >= DEAD:
                self.end(f"nothing came for {DEAD:g} s")
            elif now - moved >= STUCK:
                self.end(f"it took nothing for {STUCK:g} s")
            elif now - heard >= QUIET:
                self.post(wire.bare(Kind.PING))

    async def calm(self) -> None:
        """Wait while much is waiting to be sent: the other side does not read."""
        while self._waiting > UNREAD and not self.ended.is_set():
            self._room = trio.Event()
            await self._room.wait()

    def heard_by(self, handler: Handler, header: Header, data: memoryview | bytes) -> None:
        """Pass a frame on, or answer it where it is the session's own business."""
        body = wire.decode(header, data)
        if header.kind is Kind.PING:
            self.post(wire.bare(Kind.PONG, header.request))
        elif isinstance(body, Goodbye):
            self.end(f"it said goodbye: {body.code} {body.text}".rstrip())
        elif header.kind is Kind.HELLO:
            raise Nonsense("a second HELLO")
        elif header.kind is not Kind.PONG:
            handler.heard(header, body)


def _small(passage: Passage) -> Buffer:
    """Return a copy of what is small enough to leave with its header, else nothing."""
    return passage.copy(0, passage.size) if passage.size <= COPIED else b""


class _Receiver:
    """Cuts what comes into frames."""

    def __init__(self, session: Session, line: Line, handler: Handler, early: bytes) -> None:
        self._session = session
        self._line = line
        self._handler = handler
        self._buffer = memoryview(bytearray(max(_BUFFER, len(early))))
        self._buffer[: len(early)] = early
        self._start, self._stop = 0, len(early)

    async def run(self) -> None:
        """Receive frames until the other side hangs up between two of them."""
        while await self._have(HEADER_SIZE, ends=True):
            header = Header.decode(self._take(HEADER_SIZE))
            if header.kind in (Kind.PIECE, Kind.STATE):
                await self._piece(header)
            elif header.size <= _BUFFER:
                await self._have(header.size)
                self._session.heard_by(self._handler, header, self._take(header.size))
            else:
                data = memoryview(bytearray(header.size))
                await self._fill(data)
                self._session.heard_by(self._handler, header, data)
            if self._session._waiting > UNREAD:
                await self._session.calm()

    async def _piece(self, header: Header) -> None:
        into = self._handler.room(header)
        if into is None:
            await self._skip(header.size)
            return
        with into[: header.size] as data:
            await self._fill(data)
            await self._handler.piece(header, data)

    async def _have(self, size: int, *, ends: bool = False) -> bool:
        """Have *size* bytes in the buffer; False where the other side hung up before the first."""
        if self._start == self._stop:
            self._start = self._stop = 0
        elif len(self._buffer) - self._start < size:
            rest = self._stop - self._start
            self._buffer[:rest] = bytes(self._buffer[self._start : self._stop])
            self._start, self._stop = 0, rest
        while self._stop - self._start < size:
            count = await self._line.receive_into(self._buffer[self._stop :])
            if not count:
                if ends and self._start == self._stop:
                    return False
                raise Gone("it hung up in the middle of a frame")
            self._stop += count
        return True

    def _take(self, size: int) -> memoryview:
        self._start += size
        return self._buffer[self._start - size : self._start]

    async def _fill(self, into: memoryview) -> None:
        """Fill *into*, first from what is in the buffer."""
        done = min(len(into), self._stop - self._start)
        into[:done] = self._take(done)
        if done < len(into):
            await self._line.fill(into[done:])

    async def _skip(self, size: int) -> None:
        while size:
            await self._have(1)
            size -= len(self._take(min(size, self._stop - self._start)))


async def greeted(line: Line, remote: Remote, hello: Hello, *, dialled: bool) -> Session:
    """Exchange HELLOs and return the session; raises Gone, Untrusted or Nonsense."""
    try:
        with trio.fail_after(GREETING):
            mine = wire.frame(hello)
            if dialled:
                await line.send(MAGIC + mine)
            theirs, early = await _hello(line, b"" if dialled else MAGIC)
            if not dialled:
                await line.send(mine)
        wire.common_version(theirs)
    except Nonsense as exc:
        with trio.move_on_after(1), suppress(OSError, Gone):
            await line.send(wire.frame(Goodbye("nonsense", str(exc)[:1000])))
        raise
    except trio.TooSlowError:
        raise Gone(f"no HELLO within {GREETING:g} s") from None
    except OSError as exc:
        raise Gone(f"the connection broke: {exc}") from exc
    return Session(line, remote, theirs, early)


async def _hello(line: Line, before: bytes) -> tuple[Hello, bytes]:
    """Receive *before* and a HELLO; return it with what came behind it."""
    data = b""
    buffer = memoryview(bytearray(4096))

    async def have(size: int) -> None:
        nonlocal data
        while len(data) < size:
            count = await line.receive_into(buffer)
            if not count:
                raise Gone("it hung up before it said HELLO")
            data += buffer[:count]
            if not data.startswith(before[: len(data)]):
                raise Nonsense("it does not speak this protocol")

    start = len(before)
    await have(start + HEADER_SIZE)
    header = Header.decode(data[start : start + HEADER_SIZE])
    start += HEADER_SIZE
    if header.kind not in (Kind.HELLO, Kind.GOODBYE):
        raise Nonsense(f"{header.kind.name} before HELLO")
    await have(start + header.size)
    body = wire.decode(header, data[start : start + header.size])
    if isinstance(body, Goodbye):
        raise Gone(f"it said goodbye: {body.code} {body.text}".rstrip())
    assert isinstance(body, Hello)
    return body, data[start + header.size :]
