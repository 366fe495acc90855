"""Where an image lies: how its bootstrap is had, and which origin its blobs come from.

Every layout that IMAGE may name is one class with the same two methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

import trio

from chunkstore import Algorithm, Digest, Missing, SizedOrigin
from chunkstore.origins.directory import DirectoryOrigin
from rafs import BadImage
from rafs.imagefile import MAX_SIZE, ImageFile
from rafs.toc import BOOTSTRAP, MAX_BOOTSTRAP, contents, inline_bootstrap


@dataclass(frozen=True, slots=True)
class Promise:
    """What a place says of its bootstrap before it is fetched."""

    digest: Digest | None = None
    """Of the bootstrap itself."""
    packed: Digest | None = None
    """Of the layer that it comes packed in."""


class Place(Protocol):
    """Where an image lies."""

    within: str
    """The blob that the bootstrap is in: it cannot know that name itself. Empty: none."""

    @property
    def origin(self) -> SizedOrigin:
        """Where the blobs are."""
        ...

    async def promise(self) -> Promise:
        """Say what the bootstrap must be; raises ChunkstoreError."""
        ...

    async def fetch(self, out: BinaryIO) -> None:
        """Write the bootstrap to *out*, unchecked; raises ChunkstoreError or BadImage."""
        ...


class Documents(SizedOrigin, Protocol):
    """An origin with small files beside its blobs."""

    async def document(self, name: str, limit: int) -> bytes:
        """Return the file *name*, of at most *limit* bytes."""
        ...

    async def download(self, name: str, out: BinaryIO, limit: int) -> int:
        """Write the file *name* to *out*; return its bytes."""
        ...


class Folder:
    """image.json, image.boot and blobs/, in a directory or under a url."""

    def __init__(self, origin: Documents, within: str = "") -> None:
        self.origin = origin
        self.within = within

    async def promise(self) -> Promise:
        """Read image.json; a folder without one promises nothing."""
        try:
            text = await self.origin.document("image.json", MAX_SIZE)
        except Missing:
            return Promise()
        return Promise(ImageFile.decode(text).digest)

    async def fetch(self, out: BinaryIO) -> None:
        """Fetch image.boot, or what nydus-image's users call ``bootstrap``."""
        try:
            await self.origin.download("image.boot", out, MAX_BOOTSTRAP)
        except Missing as missing:
            try:
                await self.origin.download("bootstrap", out, MAX_BOOTSTRAP)
            except Missing:
                raise missing from None


class InsideBlob:
    """A bootstrap at the end of a blob, found by the blob's table of contents."""

    def __init__(self, origin: SizedOrigin, blob_id: str) -> None:
        self.origin = origin
        self.within = blob_id
        self._read = partial(read_range, origin, blob_id)

    async def promise(self) -> Promise:
        """Read the table of contents."""
        size = await self.origin.size(self.within)
        entries = await trio.to_thread.run_sync(contents, size, self._read)
        for entry in entries:
            if entry.name == BOOTSTRAP:
                return Promise(
                    Digest(Algorithm.SHA256, entry.digest) if any(entry.digest) else None
                )
        raise BadImage(f"blob {self.within}: no bootstrap inside")

    async def fetch(self, out: BinaryIO) -> None:
        """Copy the bootstrap out of the blob."""
        size = await self.origin.size(self.within)
        if await trio.to_thread.run_sync(inline_bootstrap, size, self._read, out) is None:
            raise BadImage(f"blob {self.within}: no bootstrap inside")


def read_range(origin: SizedOrigin, blob_id: str, start: int, stop: int) -> bytes:
    """Read from one of trio's threads."""
    into = bytearray(stop - start)
    trio.from_thread.run(origin.read, blob_id, start, memoryview(into), ignore)
    return bytes(into)


def ignore(_: int) -> None:
    """Have no use for what has arrived so far."""


def in_directory(path: Path) -> Place:
    """Return the place of the image in the directory *path*; raises Missing or BadImage."""
    if any((path / name).exists() for name in ("image.json", "image.boot", "bootstrap")):
        return Folder(DirectoryOrigin(path), _only_blob(path / "blobs"))
    blobs = path / "blobs" if (path / "blobs").is_dir() else path
    holders = [blob for blob in sorted(blobs.iterdir()) if _holds_bootstrap(blob)]
    if not holders:
        raise Missing(f"{path}: no image (neither image.boot, nor bootstrap, nor a blob with one)")
    if len(holders) > 1:
        raise BadImage(f"{path}: {len(holders)} blobs hold a bootstrap; name one of them as a file")
    return InsideBlob(DirectoryOrigin(blobs, folder=""), holders[0].name)


def in_file(path: Path) -> Place:
    """Return the place of the image whose bootstrap is inside the blob *path*."""
    return InsideBlob(DirectoryOrigin(path.parent, folder=""), path.name)


def _only_blob(blobs: Path) -> str:
    """Return the blob that a bootstrap in the folder beside it may have been in."""
    names = [blob.name for blob in blobs.iterdir()] if blobs.is_dir() else []
    return names[0] if len(names) == 1 else ""


def _holds_bootstrap(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:

        def read(start: int, stop: int) -> bytes:
            file.seek(start)
            return file.read(stop - start)

        return any(entry.name == BOOTSTRAP for entry in contents(path.stat().st_size, read))
