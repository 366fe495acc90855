"""Where files are cut into chunks: at every multiple of one size, so that equal files share."""

from __future__ import annotations

from collections.abc import Sequence

from chunkstore import MAX_CHUNK, MIN_CHUNK, Malformed

SMALL_CHUNK, LARGE_CHUNK = 256 << 10, 1 << 20
"""What ``auto`` chooses between, in bytes."""

SMALL_IMAGE = 400 << 20
"""Below this many bytes an image gets small chunks: a swarm needs some 400 chunks to keep all its
members busy, and chunks of 256 KiB brought it from 1.17 to 1.06 times the least origin traffic."""

PACKED_RATIO = 5, 2
"""How many bytes a compressed source is taken to hold per byte: typical of container layers."""


def chunk_size_for(size: int | None) -> int:
    """Return the chunk size for an image of about *size* bytes of data; None: nobody knows."""
    return SMALL_CHUNK if size is not None and size < SMALL_IMAGE else LARGE_CHUNK


def unpacked_estimate(packed: int) -> int:
    """Return how many bytes a compressed source of *packed* bytes probably holds."""
    times, over = PACKED_RATIO
    return packed * times // over


def checked_chunk_size(size: int) -> int:
    """Return *size* if RAFS allows it for chunks; raises Malformed."""
    if size & (size - 1) or not MIN_CHUNK <= size <= MAX_CHUNK:
        raise Malformed(f"a chunk size of {size} bytes: not a power of two in 4 KiB to 16 MiB")
    return size


def steps(span: range, chunk_size: int) -> Sequence[range]:
    """Return the chunks of a file's bytes *span*, which starts on one."""
    stop = span.stop
    return [
        range(start, min(start + chunk_size, stop)) for start in range(span.start, stop, chunk_size)
    ]
