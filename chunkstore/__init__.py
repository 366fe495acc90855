"""Chunks and blobs by digest: values, codecs, the blob cache, and where chunks come from."""

from __future__ import annotations

from .chunk import CHUNKS_PER_BLOB, MAX_CHUNK, MIN_CHUNK, Blob, Chunk, Codec, Extent
from .digest import Algorithm, Buffer, Digest
from .errors import (
    CacheUnusable,
    Changed,
    ChunkstoreError,
    Corrupt,
    Malformed,
    Missing,
    Refused,
    Unreachable,
)
from .source import Arrived, ChunkSource, Deliver, ExtentReader, Origin, SizedOrigin

__all__ = [
    "CHUNKS_PER_BLOB",
    "MAX_CHUNK",
    "MIN_CHUNK",
    "Algorithm",
    "Arrived",
    "Blob",
    "Buffer",
    "CacheUnusable",
    "Changed",
    "Chunk",
    "ChunkSource",
    "ChunkstoreError",
    "Codec",
    "Corrupt",
    "Deliver",
    "Digest",
    "Extent",
    "ExtentReader",
    "Malformed",
    "Missing",
    "Origin",
    "Refused",
    "SizedOrigin",
    "Unreachable",
]
