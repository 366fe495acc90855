"""Models: files that are known, by how they begin, to be read whole. Pure."""

from __future__ import annotations

import enum

from chunkstore import Buffer

HEAD = 128
"""Bytes that tell."""

_GGUF = b"GGUF"
_ZIP = b"PK\x03\x04"
_PICKLE = b"/data.pkl"
"""What the first member of an archive that PyTorch writes is called, below a folder."""

_HEADER_MOST = 100_000_000
"""Bytes of a safetensors header: the limit of its own library."""


class Kind(enum.Enum):
    """What a model is written as."""

    SAFETENSORS = "safetensors"
    GGUF = "gguf"
    PYTORCH = "pytorch"
    """An archive, whose index is a program."""


def kind_of(head: Buffer) -> Kind | None:
    """Return what the file that begins with *head* seems to be."""
    start = bytes(memoryview(head)[:HEAD])
    if start.startswith(_GGUF):
        return Kind.GGUF
    if start.startswith(_ZIP):
        return Kind.PYTORCH if _PICKLE in start else None
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _HEADER_MOST:
        return Kind.SAFETENSORS
    return None
