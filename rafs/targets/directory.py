"""A directory as an image: ``image.boot``, ``image.json`` and ``blobs/``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from chunkstore import Blob
from rafs.imagefile import VERSION, BlobFacts, BootstrapFacts, ImageFile
from rafs.scratch import locked, publish, sync_folder

from .draft import Draft, Piece

BOOTSTRAP, FACTS, BLOBS = "image.boot", "image.json", "blobs"


class DirectoryTarget:
    """The image in the folder *place*, which is made if it is not there.

    *lenders* are folders of blobs that a chunk dict may refer to. A blob found there gets a second
    name in the image, which then has all it needs and takes no more room.
    """

    def __init__(self, place: Path, lenders: Sequence[Path] = ()) -> None:
        self.place = place
        self._lenders = lenders

    def publish(self, draft: Draft) -> list[str]:
        """Name the blobs, then the bootstrap, then what vouches for the bootstrap.

        An image.json of an older image goes first: it would not fit the new bootstrap. Returns
        the blobs that are elsewhere, in words.
        """
        facts = image_file(draft).encode()
        piece = Piece.write(draft.folder / FACTS, lambda file: file.write(facts))
        blobs = self.place / BLOBS
        blobs.mkdir(exist_ok=True)
        if draft.blob is not None:
            publish(draft.blob.path, blobs / draft.blob.digest.hex)
        missing = [entry.blob.id for entry in draft.entries if not self._has(entry.blob.id)]
        with locked(self.place):  # else these could be of two builds
            (self.place / FACTS).unlink(missing_ok=True)
            sync_folder(self.place)
            publish(draft.bootstrap.path, self.place / BOOTSTRAP)
            publish(piece.path, self.place / FACTS)
        return [f"blob {blob_id} is not in {blobs}: a mount must find it" for blob_id in missing]

    def _has(self, blob_id: str) -> bool:
        """Say whether a blob is in the image; links it if a lender has it."""
        own = self.place / BLOBS / blob_id
        for lender in self._lenders:
            if not own.exists():
                with suppress(OSError):  # not there, or on another file system
                    own.hardlink_to(lender / blob_id)
        return own.exists()


def image_file(draft: Draft) -> ImageFile:
    """Return what image.json says of *draft*."""
    return ImageFile(
        version=VERSION,
        bootstrap=BootstrapFacts(str(draft.bootstrap.digest), draft.bootstrap.size),
        chunk_size=draft.chunk_size,
        blobs=tuple(_facts(entry.blob) for entry in draft.entries),
        config=draft.config,
    )


def _facts(blob: Blob) -> BlobFacts:
    return BlobFacts(blob.id, blob.size, blob.stored_size, blob.chunk_count)
