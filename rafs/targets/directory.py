"""A directory as an image: ``image.boot``, ``image.json`` and ``blobs/``."""

from __future__ import annotations

from pathlib import Path

from chunkstore import Blob
from rafs.imagefile import VERSION, BlobFacts, BootstrapFacts, ImageFile
from rafs.scratch import publish, sync_folder

from .draft import Draft, Piece

BOOTSTRAP, FACTS, BLOBS = "image.boot", "image.json", "blobs"


class DirectoryTarget:
    """The image in the folder *place*, which is made if it is not there."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def publish(self, draft: Draft) -> None:
        """Name the blob, then the bootstrap, then what vouches for the bootstrap.

        An image.json of an older image goes first: it would not fit the new bootstrap.
        """
        facts = image_file(draft).encode()
        piece = Piece.write(draft.folder / FACTS, lambda file: file.write(facts))
        blobs = self.place / BLOBS
        blobs.mkdir(exist_ok=True)
        if draft.blob is not None:
            publish(draft.blob.path, blobs / draft.blob.digest.hex)
        (self.place / FACTS).unlink(missing_ok=True)
        sync_folder(self.place)
        publish(draft.bootstrap.path, self.place / BOOTSTRAP)
        publish(piece.path, self.place / FACTS)


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
