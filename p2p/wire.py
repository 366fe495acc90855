"""Wire: frames to bytes and back. No I/O; PROTOCOL.md has the tables.

A header says how long its body is, and that is believed only within the type's limit. Bodies are
decoded with their types checked; `REQUEST` is packed by hand and `PIECE`, `STATE` are bytes.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

import msgspec

from chunkstore import Algorithm, Chunk, Codec, Digest
from chunkstore.codec import MAX_UNIT

from . import messages
from .errors import Nonsense
from .messages import Body

MAGIC = b"naiadp2p"
"""What the dialler says first."""

OLDEST, NEWEST = 1, 1
"""Versions that this code speaks."""

HEADER_SIZE = 16

MAX_PIECE = (16 << 20) + 1024
"""Bytes of a ``PIECE``: the largest chunk, with room for an LZ4 block that did not shrink."""

_SMALL, _LARGER, _STATE = 64 << 10, 1 << 20, 16 << 20


class Kind(enum.IntEnum):
    """What a frame is; values are its type on the wire."""

    HELLO = 1
    GOODBYE = 2
    PING = 3
    PONG = 4
    FOLLOW = 8
    UNFOLLOW = 9
    HAVE = 10
    REQUEST = 12
    CANCEL = 13
    PIECE = 14
    ABSENT = 15
    BUSY = 16
    FAILED = 17
    COMPLAINT = 18
    ANNOUNCE = 32
    JOIN = 33
    LEAVE = 34
    HELD = 35
    WANT = 36
    UNWANT = 37
    RETURN = 38
    REPORT = 39
    NEED = 40
    PUBLISH = 41
    ORIGIN = 42
    PARENTS = 48
    GRANT = 49
    HINT = 50
    PIECES = 51
    CHANGED = 52
    ASIDE = 53
    WAIT = 54
    STATUS = 56
    STATE = 57


BODIES: dict[Kind, type[Body]] = {
    Kind.HELLO: messages.Hello,
    Kind.GOODBYE: messages.Goodbye,
    Kind.FOLLOW: messages.Follow,
    Kind.UNFOLLOW: messages.Unfollow,
    Kind.HAVE: messages.Have,
    Kind.BUSY: messages.Busy,
    Kind.FAILED: messages.Failed,
    Kind.COMPLAINT: messages.Complaint,
    Kind.ANNOUNCE: messages.Announce,
    Kind.JOIN: messages.Join,
    Kind.LEAVE: messages.Leave,
    Kind.HELD: messages.Held,
    Kind.WANT: messages.Want,
    Kind.UNWANT: messages.Unwant,
    Kind.RETURN: messages.Return,
    Kind.REPORT: messages.Report,
    Kind.NEED: messages.Need,
    Kind.PUBLISH: messages.Publish,
    Kind.ORIGIN: messages.Origin,
    Kind.PARENTS: messages.Parents,
    Kind.GRANT: messages.Grant,
    Kind.HINT: messages.Hint,
    Kind.PIECES: messages.Pieces,
    Kind.CHANGED: messages.Changed,
    Kind.ASIDE: messages.Aside,
    Kind.WAIT: messages.Wait,
}
"""The frames whose body is MessagePack."""

KINDS = {body: kind for kind, body in BODIES.items()}

_BARE = (Kind.PING, Kind.PONG, Kind.CANCEL, Kind.ABSENT, Kind.STATUS)
"""The frames without a body."""

_LARGE = (Kind.HAVE, Kind.PUBLISH, Kind.PIECES)

LIMITS: dict[Kind, int] = (
    dict.fromkeys(BODIES, _SMALL)
    | dict.fromkeys(_LARGE, _LARGER)
    | dict.fromkeys(_BARE, 0)
    | {Kind.REQUEST: 96, Kind.PIECE: MAX_PIECE, Kind.STATE: _STATE}
)
"""Bytes of a body at most."""

LZ4_BLOCK = 1
"""The flag of a ``PIECE`` that is one."""

_HEADER = struct.Struct("<IBBHQ")
_REQUEST = struct.Struct("<IIBBBBI32sQQIII20s")
_ZEROS = bytes(20)

_DIGESTS = {Algorithm.BLAKE3: 1, Algorithm.SHA256: 2}
_ALGORITHMS = {number: algorithm for algorithm, number in _DIGESTS.items()}
_NO_DIGEST = bytes(32)


@dataclass(frozen=True, slots=True)
class Header:
    """The first 16 bytes of a frame."""

    size: int
    """Bytes of the body."""
    kind: Kind
    flags: int
    request: int

    @classmethod
    def decode(cls, data: memoryview | bytes) -> Header:
        """Read 16 bytes; raises Nonsense."""
        size, number, flags, reserved, request = _HEADER.unpack(data)
        kind = _KINDS_BY_NUMBER.get(number)
        if kind is None:
            raise Nonsense(f"a frame of unknown type {number}")
        if size > LIMITS[kind]:
            raise Nonsense(f"{kind.name} of {size} bytes, more than {LIMITS[kind]}")
        if reserved or flags not in ((0, LZ4_BLOCK) if kind is Kind.PIECE else (0,)):
            raise Nonsense(f"{kind.name} with flags {flags}, reserved {reserved}")
        return cls(size, kind, flags, request)


_KINDS_BY_NUMBER = {kind.value: kind for kind in Kind}


class Priority(enum.IntEnum):
    """Who waits for a piece; the lower goes first."""

    READER = 0
    PREFETCH = 1
    BULK = 2


@dataclass(frozen=True, slots=True)
class Request:
    """A piece that is asked for: the chunk as the bootstrap describes it."""

    handle: int
    chunk: Chunk | None
    """None: a file's piece whose digest nobody knows yet."""
    piece: int
    priority: Priority
    lz4: bool = False
    """An LZ4 block is welcome."""
    size: int = 0
    """Decoded bytes; of the chunk where there is one."""
    offset: int = 0

    def encode(self, request: int) -> bytes:
        """Return the frame."""
        chunk = self.chunk
        if chunk is None:
            facts: tuple[object, ...] = (0, 0, self.size, _NO_DIGEST, self.offset, 0, 0, 0, 0)
        else:
            function = _DIGESTS[chunk.digest.algorithm]
            place = chunk.stored_offset, chunk.stored_size, chunk.unit_offset, chunk.unit_size
            raw = chunk.digest.raw
            facts = (function, chunk.codec.value, chunk.size, raw, chunk.offset, *place)
        return _HEADER.pack(_REQUEST.size, Kind.REQUEST, 0, 0, request) + _REQUEST.pack(
            self.handle, self.piece, self.priority, self.lz4, *facts, _ZEROS
        )

    @classmethod
    def decode(cls, data: memoryview | bytes) -> Request:
        """Read the 96 bytes of a body; raises Nonsense."""
        if len(data) != _REQUEST.size:
            raise Nonsense(f"REQUEST of {len(data)} bytes")
        handle, piece, priority, accepts, function, codec, size, raw, offset, *stored, _ = (
            _REQUEST.unpack(data)
        )
        try:
            urgency, lz4 = Priority(priority), bool(accepts & 1)
            if piece >= 1 << 24 or not 0 < size <= MAX_UNIT // 2 or offset > 1 << 44:
                raise ValueError(f"piece {piece} of {size} bytes at {offset}")
            if function == 0:
                return cls(handle, None, piece, urgency, lz4, size, offset)
            digest = Digest(_ALGORITHMS[function], raw)
            at, stored_size, unit_offset, unit_size = stored
            chunk = Chunk(
                piece, digest, offset, size, at, stored_size, Codec(codec), unit_offset, unit_size
            )
        except (ValueError, KeyError) as exc:
            raise Nonsense(f"a REQUEST that cannot be: {exc}") from exc
        return cls(handle, chunk, piece, urgency, lz4, size, offset)


def frame(body: Body, request: int = 0) -> bytes:
    """Return *body* with its header."""
    data = _encoder.encode(body)
    return _HEADER.pack(len(data), KINDS[type(body)], 0, 0, request) + data


def bare(kind: Kind, request: int = 0) -> bytes:
    """Return a frame without a body."""
    return _HEADER.pack(0, kind, 0, 0, request)


def piece_header(size: int, request: int, *, lz4: bool = False) -> bytes:
    """Return what goes before the *size* bytes of a piece."""
    return _HEADER.pack(size, Kind.PIECE, LZ4_BLOCK if lz4 else 0, 0, request)


def state(document: bytes) -> bytes:
    """Return a scheduler's state, JSON, as a frame."""
    return _HEADER.pack(len(document), Kind.STATE, 0, 0, 0) + document


def decode(header: Header, data: memoryview | bytes) -> Body | Request | None:
    """Read the body of any frame but ``PIECE`` and ``STATE``; raises Nonsense."""
    if header.kind is Kind.REQUEST:
        return Request.decode(data)
    decoder = _DECODERS.get(header.kind)
    if decoder is None:
        return None
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise Nonsense(f"{header.kind.name}: {exc}") from exc


def common_version(hello: messages.Hello) -> int:
    """Return the newest version that both sides know; raises Nonsense where there is none."""
    version = min(NEWEST, hello.newest)
    if version < max(OLDEST, hello.oldest):
        theirs = f"{hello.oldest} to {hello.newest}"
        raise Nonsense(f"it speaks versions {theirs}, this is {OLDEST} to {NEWEST}")
    return version


_encoder = msgspec.msgpack.Encoder()
_DECODERS = {kind: msgspec.msgpack.Decoder(body) for kind, body in BODIES.items()}
