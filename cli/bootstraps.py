"""Bootstraps kept in the cache folder by digest, so that a second mount need not fetch one.

``bootstraps/sha256-HEX`` is a bootstrap, written once under another name and then renamed.
``bootstraps/checked-sha256-HEX`` says that a check has found no fault in it.
``bootstraps/of-NAME`` holds the digest of the bootstrap that came packed as NAME, a layer's digest.
``bootstraps/list-HEX`` is a chunk list that an image needs besides, behind its own SHA-256.
A file is hashed whenever it is opened: a disk may have rotted. Whoever serves one asks ``altered``
now and then, as it is mapped and not copied. Whoever has one open, and whoever writes one, holds a
lock on it, so that ``collect`` removes only what nobody uses.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from chunkstore import Algorithm, Buffer, CacheUnusable, Digest, Malformed
from rafs import BadImage, Bootstrap

logger = logging.getLogger(__name__)

_HASH = 32
"""Bytes of SHA-256."""

_FOLDER = "bootstraps"

_EDITION = b"1\n"
"""To be raised when the check finds more than it did."""


@dataclass(slots=True)
class _Open:
    """A bootstrap that was hashed and is served."""

    handle: int
    """Locked, shared."""
    path: Path
    digest: Digest
    stamp: tuple[int, ...]
    """What of the file moves with every write to it, from before it was hashed."""


class Bootstraps:
    """The folder of kept bootstraps."""

    def __init__(self, cache: Path) -> None:
        """Make the folder in *cache*, which must be ours already."""
        self._folder = cache / _FOLDER
        self._held: list[_Open] = []
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise CacheUnusable(f"{self._folder}: {exc.strerror}") from exc

    def find(self, digest: Digest, within: str = "") -> Bootstrap | None:
        """Open the bootstrap that hashes to *digest*, None if it is not here unharmed.

        *within* is the id of the blob that it was found in, if any. Raises BadImage.
        """
        path = self.path(digest)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        held = _Open(handle, path, digest, _stamp(handle))
        fcntl.flock(handle, fcntl.LOCK_SH)
        there = path.exists()
        if there and _hashes_to(path, digest):
            self._held.append(held)
            bootstrap = Bootstrap.open(path, within=within)
            bootstrap.page_in()
            return bootstrap
        os.close(handle)
        if there:
            logger.warning("kept bootstrap is damaged, dropped path=%s", path)
            path.unlink(missing_ok=True)
        return None

    def altered(self, *, thoroughly: bool = False) -> Path | None:
        """Return one of those open that is no longer what it was, None if all are.

        Hashes those that were written to, or *thoroughly* all: a disk rots without a write.
        """
        for held in self._held:
            stamp = _stamp(held.handle)
            if stamp != held.stamp or thoroughly:
                file = Path(f"/proc/self/fd/{held.handle}")
                if not _hashes_to(file, held.digest):
                    return held.path
                held.stamp = stamp
        return None

    def kept_list(self, blob_id: str, start: int, size: int) -> bytes | None:
        """Return the chunk list that stands in a blob from *start* on, if it is here unharmed."""
        try:
            data = self._list(blob_id, start).read_bytes()
        except FileNotFoundError:
            return None
        whole = data[:_HASH] == hashlib.sha256(data[_HASH:]).digest()
        return data[_HASH:] if whole and len(data) == _HASH + size else None

    def keep_list(self, blob_id: str, start: int, data: Buffer) -> None:
        """Keep a chunk list; nothing vouches for it but the chunks that it finds."""
        with self._new() as (file, path):
            file.write(hashlib.sha256(data).digest())
            file.write(data)
            file.flush()
            path.rename(self._list(blob_id, start))

    def packed_as(self, name: Digest) -> Digest | None:
        """Return the digest of the bootstrap that came packed as *name*, if it has come before."""
        try:
            return Digest.parse(self._alias(name).read_text())
        except (FileNotFoundError, Malformed):
            return None

    def remember(self, name: Digest, digest: Digest) -> None:
        """Note that what is packed as *name* holds the bootstrap *digest*."""
        with self._new() as (file, path):
            file.write(str(digest).encode())
            file.flush()
            path.rename(self._alias(name))

    @contextmanager
    def arriving(self) -> Iterator[tuple[BinaryIO, Path]]:
        """Yield a new file to write a bootstrap to, for `keep`; it vanishes if it is not kept."""
        with self._new() as new:
            yield new

    def keep(self, path: Path, expected: Digest | None) -> Digest:
        """Take in the written file at *path* and return its SHA-256.

        Raises BadImage when it does not hash to *expected*.
        """
        digest = _digest(path, Algorithm.SHA256)
        if expected is not None:
            found = (
                digest
                if expected.algorithm is Algorithm.SHA256
                else _digest(path, expected.algorithm)
            )
            if found != expected:
                raise BadImage(f"the bootstrap is {found} and should be {expected}")
        path.rename(self.path(digest))
        return digest

    def collect(self) -> int:
        """Remove what nobody uses and return its bytes."""
        freed = 0
        for path in self._folder.iterdir():
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
                freed += os.fstat(handle).st_size
            except BlockingIOError:
                continue
            finally:
                os.close(handle)
        return freed

    def is_checked(self, digest: Digest) -> bool:
        """Say whether this edition of the check has found no fault in a bootstrap."""
        return is_noted(self._folder.parent, digest)

    def note_checked(self, digest: Digest) -> None:
        """Remember that the check has found no fault in a bootstrap."""
        with self._new() as (file, path):
            file.write(_EDITION)
            file.flush()
            path.rename(_note(self._folder, digest))

    def close(self) -> None:
        """Let go of what is open."""
        while self._held:
            os.close(self._held.pop().handle)

    @contextmanager
    def _new(self) -> Iterator[tuple[BinaryIO, Path]]:
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=".new-")
        path = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield file, path
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT) and exc.filename is None:
                exc.filename = os.fspath(self._folder)
            raise
        finally:
            path.unlink(missing_ok=True)

    def path(self, digest: Digest) -> Path:
        """Return where a bootstrap is kept, if it is."""
        return self._folder / f"{digest.algorithm.value}-{digest.hex}"

    def _list(self, blob_id: str, start: int) -> Path:
        name = hashlib.sha256(f"{start} {blob_id}".encode()).hexdigest()
        return self._folder / f"list-{name}"

    def _alias(self, name: Digest) -> Path:
        return self._folder / f"of-{name.algorithm.value}-{name.hex}"


def is_noted(cache: Path, digest: Digest) -> bool:
    """Say whether it is known in *cache* that this edition of the check has found no fault."""
    try:
        return _note(cache / _FOLDER, digest).read_bytes() == _EDITION
    except OSError:
        return False


def _note(folder: Path, digest: Digest) -> Path:
    return folder / f"checked-{digest.algorithm.value}-{digest.hex}"


def _stamp(handle: int) -> tuple[int, ...]:
    facts = os.fstat(handle)
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _hashes_to(path: Path, digest: Digest) -> bool:
    """Say whether a file is what *digest* says; an empty one, which a crash may leave, is not."""
    return path.stat().st_size > 0 and _digest(path, digest.algorithm) == digest


def _digest(path: Path, algorithm: Algorithm) -> Digest:
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise BadImage("superblock at byte 0: the file is empty")
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            return Digest.of(memoryview(mapped), algorithm)
