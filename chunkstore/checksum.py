"""Checksum: what a whole file must hash to, as hubs and Git tell it."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .digest import Buffer
from .errors import Malformed


class Kind(enum.Enum):
    """How a file is hashed; values are its names in text."""

    SHA256 = "sha256"
    GIT = "git"
    """A Git blob's SHA-1: of its size and its bytes."""


class Hasher(Protocol):
    """A hash of bytes that come in pieces."""

    def update(self, data: Buffer, /) -> object:
        """Take some more."""
        ...

    def digest(self) -> bytes:
        """Return the hash of what came so far."""
        ...


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a file of a known size must hash to."""

    kind: Kind
    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != _SIZES[self.kind]:
            raise Malformed(f"a {self.kind.value} checksum of {len(self.raw)} bytes")

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """Read ``sha256:HEX`` or ``git:HEX``; raises Malformed."""
        name, colon, digits = text.partition(":")
        try:
            if not colon or digits != digits.lower():
                raise ValueError
            return cls(Kind(name), bytes.fromhex(digits))
        except ValueError as exc:
            raise Malformed(f"not a checksum: {text[:100]!r}") from exc

    def hasher(self, size: int) -> Hasher:
        """Return what hashes a file of *size* bytes."""
        return _BEGUN[self.kind](size)

    def matches(self, data: Buffer) -> bool:
        """Say whether *data* is the file."""
        hasher = self.hasher(len(data))
        hasher.update(data)
        return hasher.digest() == self.raw

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.raw.hex()}"


def _git(size: int) -> Hasher:
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


_SIZES = {Kind.SHA256: 32, Kind.GIT: 20}
_BEGUN: dict[Kind, Callable[[int], Hasher]] = {
    Kind.SHA256: lambda size: hashlib.sha256(),
    Kind.GIT: _git,
}
