"""Statistics of one image's store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .ledger import Tally


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a store has done since it was made, and how it stands."""

    sources: Mapping[str, Tally]
    """By name: ``cache`` is what reads found there; the others are what was fetched."""
    ready_size: int
    """Decoded bytes of the opened blobs that are in the cache."""
    held_size: int
    """Bytes held in memory because the cache had no room for them."""
    waiting_reads: int
    pending_chunks: int
    """Chunks that are asked for and not being fetched yet."""
    refused_reads: int
    """Reads that ended in an error: too many waited already, nothing came, nothing right came."""
    last_error: str
    """Why a read, a fetch ahead of reads, or keeping a chunk failed last; empty: nothing did."""
    last_error_at: float
    """By the clock of the day."""
