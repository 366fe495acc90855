"""Models: files known, by how they begin, to be read whole, and images that hold such. Pure."""

from __future__ import annotations

import enum
import stat
from collections.abc import Iterator

from chunkstore import Buffer
from fusefs.tree import Tree

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


_SUFFIXES = (
    *(b".safetensors", b".gguf", b".ggml", b".pt", b".pth", b".ckpt", b".bin"),
    *(b".npy", b".npz", b".onnx", b".h5", b".msgpack"),
)

_INODES = 4096
"""An image of more is a file system with a model in it."""


def is_mostly_models(tree: Tree) -> bool:
    """Say whether more than half of an image's bytes are in files that are named like models."""
    if tree.inode_count > _INODES:
        return False
    named = sum(size for name, size in _files(tree) if name.endswith(_SUFFIXES))
    return 2 * named > sum(blob.size for blob in tree.blobs) and named >= _WORTH


_WORTH = 64 << 20
"""Bytes of a model that is worth it."""


def _files(tree: Tree) -> Iterator[tuple[bytes, int]]:
    """Yield name and size of every regular file, at most as many as there are inodes."""
    waiting, left = [tree.root], tree.inode_count
    while waiting and left > 0:
        for name, nid, _ in tree.scan(waiting.pop(), 0):
            left -= 1
            found = tree.attributes(nid)
            if stat.S_ISDIR(found[0]):
                waiting.append(nid)
            elif stat.S_ISREG(found[0]):
                yield name, found[5]
