"""Image metadata: the tree and its formats. Pure: no trio, no sockets."""

from __future__ import annotations

from .bootstrap import Bootstrap
from .chunkmap import ChunkMap
from .errors import BadImage, BadSource, NoEntry, RafsError, Unsupported, WrongKind
from .inode import Entry, Inode, Kind

__all__ = [
    "BadImage",
    "BadSource",
    "Bootstrap",
    "ChunkMap",
    "Entry",
    "Inode",
    "Kind",
    "NoEntry",
    "RafsError",
    "Unsupported",
    "WrongKind",
]
