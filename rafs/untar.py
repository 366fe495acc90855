"""unpack_tar: from an image to a tar stream, front to back."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from chunkstore import Buffer

from .bootstrap import Bootstrap
from .content import Place, Reader, data_regions, places, read_regions
from .tarformat import Member, Type
from .tarwriter import TarWriter

Advance = Callable[[int], None]
"""Told how many bytes of files are done."""

WORTHWHILE = 1 << 20
"""Bytes of holes from which on a file is written as a sparse one, which not every tool reads."""

_TYPES = {
    stat.S_IFREG: Type.FILE,
    stat.S_IFDIR: Type.DIRECTORY,
    stat.S_IFLNK: Type.SYMLINK,
    stat.S_IFCHR: Type.CHARACTER,
    stat.S_IFBLK: Type.BLOCK,
    stat.S_IFIFO: Type.FIFO,
}


def unpack_tar(
    image: Bootstrap,
    reader: Reader,
    write: Callable[[Buffer], object],
    advance: Advance | None = None,
) -> list[str]:
    """Hand *write* a pax archive of all of *image*; return what was left out, in words.

    Raises BadImage, ChunkstoreError, and what *write* raises.
    """
    tar = TarWriter(write)
    words = []
    done = 0
    for place in places(image):
        kind = _TYPES.get(stat.S_IFMT(place.mode))
        if kind is None:
            words.append(f"left out, a socket: {os.fsdecode(place.path)}")
            continue
        member, regions = _member(image, place, kind)
        tar.add(member)
        for _, data in read_regions(image, place, regions, reader):
            tar.write(data)
            done += len(data)
            if advance is not None:
                advance(done)
    tar.close()
    return words


def _member(image: Bootstrap, place: Place, kind: Type) -> tuple[Member, list[tuple[int, int]]]:
    """Return a file as tar has it, and the ``[start, stop)`` of its data."""
    regions: list[tuple[int, int]] = []
    size = stored = 0
    target = b""
    if place.first is not None:
        kind, target = Type.LINK, place.first
    elif kind is Type.FILE:
        size, regions = place.size, list(data_regions(image, place))
        stored = sum(stop - start for start, stop in regions)
        if size - stored < WORTHWHILE:
            stored, regions = size, [(0, size)] if size else []
    elif kind is Type.SYMLINK:
        target = image.target(place.nid)
    sparse = [(start, stop - start) for start, stop in regions] if stored < size else None
    name = place.path if kind is not Type.DIRECTORY else (place.path or b".") + b"/"
    return (
        Member(
            name=name,
            type=kind,
            mode=stat.S_IMODE(place.mode),
            uid=place.uid,
            gid=place.gid,
            mtime=place.mtime,
            mtime_nsec=place.mtime_nsec,
            size=size,
            stored=stored,
            target=target,
            device=(os.major(place.rdev), os.minor(place.rdev)),
            xattrs=image.xattrs(place.nid) if kind is not Type.LINK else {},
            regions=sparse,
        ),
        regions,
    )
