"""Packing: from a chunk's bytes to its digest and what is stored of it. Runs in any thread.

Results are parallel lists, because an object per chunk would cost more than a small file's hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field

from blake3 import blake3

from chunkstore import Algorithm, Buffer, Codec
from chunkstore.codec import encode


@dataclass(frozen=True, slots=True)
class Rules:
    """How every chunk of an image is packed."""

    chunk_size: int
    codec: Codec = Codec.LZ4
    algorithm: Algorithm = Algorithm.BLAKE3
    known: Container[bytes] = ()
    """Digests that need no storing any more; only grows while a build runs."""


@dataclass(slots=True)
class Packed:
    """Some chunks, packed: item *i* of each list belongs to chunk *i*."""

    digests: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    stored: list[Buffer] = field(default_factory=list)
    """Empty where the digest was known."""
    coded: list[bool] = field(default_factory=list)
    """Whether ``stored`` went through the codec."""


def pack(pieces: Iterable[Buffer], rules: Rules) -> Packed:
    """Hash *pieces* and compress those that are new and gain by it."""
    digest_of, codec, known = _HASH[rules.algorithm], rules.codec, rules.known
    packed = Packed()
    for piece in pieces:
        digest = digest_of(piece)
        coded = None if (old := digest in known) else encode(codec, piece)
        packed.digests.append(digest)
        packed.sizes.append(len(piece))
        packed.coded.append(coded is not None)
        packed.stored.append(b"" if old else piece if coded is None else coded)
    return packed


def _blake3(data: Buffer) -> bytes:
    return blake3(data).digest()


def _sha256(data: Buffer) -> bytes:
    return hashlib.sha256(data).digest()


_HASH: dict[Algorithm, Callable[[Buffer], bytes]] = {
    Algorithm.BLAKE3: _blake3,
    Algorithm.SHA256: _sha256,
}
