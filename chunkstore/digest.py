"""Digest: what some bytes must hash to."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass

import blake3

from .errors import Malformed

Buffer = bytes | bytearray | memoryview
"""What counts as bytes everywhere in naiad."""

_SIZE = 32


class Algorithm(enum.Enum):
    """A hash function that a digest may come from; values are its names in text."""

    BLAKE3 = "blake3"
    SHA256 = "sha256"


@dataclass(frozen=True, slots=True)
class Digest:
    """The hash of some bytes, with the function that made it."""

    algorithm: Algorithm
    raw: bytes
    """32 bytes."""

    def __post_init__(self) -> None:
        if len(self.raw) != _SIZE:
            raise Malformed(
                f"a {self.algorithm.value} digest of {len(self.raw)} bytes, not {_SIZE}"
            )

    @classmethod
    def of(cls, data: Buffer, algorithm: Algorithm = Algorithm.BLAKE3) -> Digest:
        """Hash *data*; both functions release the GIL for anything worth it."""
        return cls(algorithm, _HASH[algorithm](data))

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``blake3:HEX`` or ``sha256:HEX``; raises Malformed."""
        name, colon, digits = text.partition(":")
        try:
            if not colon or len(digits) != 2 * _SIZE or digits != digits.lower():
                raise ValueError
            return cls(Algorithm(name), bytes.fromhex(digits))
        except ValueError as exc:
            raise Malformed(f"not a digest: {text[:100]!r}") from exc

    def matches(self, data: Buffer) -> bool:
        """Say whether *data* hashes to this digest."""
        return _HASH[self.algorithm](data) == self.raw

    @property
    def hex(self) -> str:
        """The hash in lower-case hexadecimal."""
        return self.raw.hex()

    def __str__(self) -> str:
        return f"{self.algorithm.value}:{self.raw.hex()}"


def _blake3(data: Buffer) -> bytes:
    return blake3.blake3(data).digest()


def _sha256(data: Buffer) -> bytes:
    return hashlib.sha256(data).digest()


_HASH = {Algorithm.BLAKE3: _blake3, Algorithm.SHA256: _sha256}
