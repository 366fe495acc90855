"""Task: what is distributed, its name and its description."""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3

from chunkstore import Blob
from chunkstore.filepair import Place

from .messages import Description


def blob_task(blob_id: str) -> bytes:
    """Return the name of the task that distributes a blob.

    Of the name of its files in the cache, so that a host can tell it of what lies there.
    """
    return blake3(b"naiad blob\0" + Place.of(Path(), blob_id).name.encode()).digest()


def describe(blob: Blob, origin: str = "") -> Description:
    """Return the description of *blob*'s task; *origin* is where a seed finds it."""
    return Description("blob", blob.id[:1024], blob.size, blob.chunk_count, origin[:1024])
