"""Folders: which small files of a RAFS v6 image lie in one directory, told by their chunks.

Metadata leads from directories to chunks; whoever knows but the chunk that was missed finds here
what lies beside it. A file is small that has one chunk. A directory's blocks are read one after the
other, at 1.4 us a name, and each is a folder of its own: so a large directory is many, in the order
of names. What is rare is left out: inodes with xattrs, and compact ones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from chunkstore import Buffer

from . import erofs
from .erofs import SLOT
from .erofs_view import Erofs
from .inode import Kind
from .metadata import Facts, Folder

_FILE: Final = struct.Struct("<HH4xQ48xHHI")
"""An extended inode without xattrs, and the chunk index behind it: format, xattr units, size, and
the index."""
_PLAIN: Final = erofs.CHUNKED << 1 | 1
_DIRECTORY, _FILE_KIND = Kind.DIRECTORY.value, Kind.FILE.value


def folders(view: Erofs, facts: Facts, buffer: Buffer, inodes: int) -> Iterator[Sequence[Folder]]:
    """Yield what each block of each directory names, by blobs; raises RafsError.

    *inodes* is the byte of *buffer* from which inode numbers count.
    """
    step, last = facts.chunk_size, len(buffer) - _FILE.size
    seen, pending = {facts.root}, [facts.root]
    while pending:
        for _, _, nids, kinds in view.blocks(pending.pop()):
            found: dict[int, list[int]] = {}
            for nid, kind in zip(nids, kinds, strict=True):
                place = inodes + nid * SLOT
                if kind == _FILE_KIND and place <= last:
                    form, units, size, low, high, block = _FILE.unpack_from(buffer, place)
                    plain = form == _PLAIN and not units and block != erofs.NO_BLOCK
                    if plain and 0 < size <= step:
                        found.setdefault(high & 0xFF, []).append(high >> 8 << 16 | low)
                elif kind == _DIRECTORY and nid not in seen:
                    seen.add(nid)
                    pending.append(nid)
            yield [(device - 1, indices) for device, indices in found.items()]
