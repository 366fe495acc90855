"""Whole files as blobs: what is known of a file whose chunks nobody has hashed.

A hub tells one checksum per file. So the digest that an image gives for such a file's chunk is a
name only, made of the file's checksum and the chunk's number: no bytes hash to it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from .checksum import Checksum, Kind
from .digest import Digest
from .errors import Malformed

STEP = 1 << 20
"""Bytes of a chunk; a smaller file is a single one."""

_DIGEST = 32
_NAMES = b"naiad: a chunk that nobody has hashed\0"


@dataclass(frozen=True, slots=True)
class Whole:
    """A file that is checked as a whole, and the place of its chunks."""

    name: str
    """Its path."""
    size: int
    checksum: Checksum
    blob_id: str
    first: int
    """The index of its first chunk; the others follow."""
    stored_offset: int
    """Where its first byte is in the stored blob, if that were there."""

    @property
    def count(self) -> int:
        """How many chunks it has."""
        return -(-self.size // STEP)


def placeholder(checksum: Checksum, number: int) -> Digest:
    """Return what names chunk *number* of a file, as long as nobody has hashed it."""
    named = _NAMES + str(checksum).encode() + number.to_bytes(8, "little")
    return Digest.of(hashlib.sha256(named).digest())


class Vouched:
    """The digests of the chunks of files whose checksum was found right, kept in a folder.

    A file there is the digests one after the other, and a hash of them all.
    """

    def __init__(self, root: Path) -> None:
        """Use a folder in *root*, the cache's; raises OSError."""
        self._folder = root / "vouched"
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def load(self, whole: Whole) -> Sequence[bytes] | None:
        """Return the digests of *whole*'s chunks; None where they are not known."""
        found = self._read(whole.checksum)
        if found is not None and len(found) != whole.count:
            self._path(whole.checksum).unlink(missing_ok=True)
            return None
        return found

    def of_blob(self, blob_id: str) -> tuple[Checksum, Sequence[bytes]] | None:
        """Return checksum and digests of the file that a blob is; None where it is none."""
        kind, dash, digits = blob_id.rpartition("-")
        try:
            checksum = Checksum.parse(f"{kind if dash else Kind.SHA256.value}:{digits}")
        except Malformed:
            return None
        found = self._read(checksum)
        return None if found is None else (checksum, found)

    def _read(self, checksum: Checksum) -> Sequence[bytes] | None:
        try:
            data = self._path(checksum).read_bytes()
        except FileNotFoundError:
            return None
        body, seal = data[:-_DIGEST], data[-_DIGEST:]
        if len(body) % _DIGEST or blake3(body).digest() != seal:
            self._path(checksum).unlink(missing_ok=True)
            return None
        return [body[at : at + _DIGEST] for at in range(0, len(body), _DIGEST)]

    def save(self, whole: Whole, digests: Sequence[bytes]) -> None:
        """Keep *digests*; raises OSError."""
        body = b"".join(digests)
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=".new-")
        path = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(body + blake3(body).digest())
                file.flush()
                os.fsync(file.fileno())
            path.replace(self._path(whole.checksum))
        finally:
            path.unlink(missing_ok=True)

    def collect(self, blobs: Path) -> None:
        """Remove what speaks of files that are not in the folder *blobs*."""
        for path in self._folder.iterdir():
            kind, _, rest = path.name.partition("-")
            prefix = "" if kind == Kind.SHA256.value else f"{kind}-"
            if not (blobs / f"{prefix}{rest.partition('-')[0]}.map").exists():
                path.unlink(missing_ok=True)

    def _path(self, checksum: Checksum) -> Path:
        return self._folder / f"{checksum.kind.value}-{checksum.raw.hex()}-{STEP}"
