"""What ``naiad inspect`` tells: an image counted through, or one path of it."""

from __future__ import annotations

import stat
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from chunkstore import Algorithm, Blob, Chunk, Codec, Digest
from rafs import Bootstrap, Inode, Kind, NoEntry

from .output import human


@dataclass(frozen=True, slots=True)
class BlobFacts:
    """One blob of an image."""

    id: str
    size: int
    stored_size: int
    chunks: int
    """In the blob."""
    used: int
    """Of them, those that this image needs."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image, counted."""

    bootstrap: Digest
    version: int
    codec: Codec
    algorithm: Algorithm
    chunk_size: int
    inodes: dict[str, int]
    """By kind."""
    size: int
    """Bytes of all files, each inode once."""
    holes: int
    """Of them, bytes that are in no chunk."""
    chunks: int
    """Different ones."""
    unique: int
    """Bytes of them."""
    stored: int
    """Bytes of them as they are stored."""
    blobs: tuple[BlobFacts, ...]


@dataclass(frozen=True, slots=True)
class ChunkFacts:
    """A chunk of a file; None of its facts where the file has a hole."""

    digest: Digest
    blob: str
    index: int
    offset: int
    size: int
    stored_size: int

    def row(self) -> tuple[object, ...]:
        """Return it as ``inspect`` shows it."""
        size, stored = human(self.size), human(self.stored_size)
        return self.digest, self.offset, size, stored, self.blob[:12], self.index


@dataclass(frozen=True, slots=True)
class PathFacts:
    """One path of an image."""

    path: str
    inode: Inode
    target: str
    xattrs: dict[str, bytes]
    entries: int | None
    """Names in a directory."""
    chunks: tuple[ChunkFacts, ...]

    def shown(self) -> Iterator[tuple[str, object]]:
        """Yield names and values for a person."""
        inode = self.inode
        yield "path", self.path
        yield "mode", f"{stat.filemode(inode.mode)} ({stat.S_IMODE(inode.mode):04o})"
        yield "owner", f"{inode.uid}:{inode.gid}"
        yield "size", inode.size
        yield "links", inode.nlink
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(inode.mtime))
        yield "modified", f"{when}.{inode.mtime_nsec:09d} UTC"
        yield "inode", f"{inode.ino} (nid {inode.nid})"
        yield "target", self.target
        yield "entries", self.entries
        yield from self.xattrs.items()


def survey(bootstrap: Bootstrap, digest: Digest) -> ImageFacts:
    """Count everything in an image; takes time and memory by its inodes and chunks."""
    kinds: Counter[str] = Counter()
    size = holes = 0
    used: dict[tuple[str, int], Chunk] = {}
    for inode in _inodes(bootstrap):
        kinds[Kind.of(inode.mode).name.lower()] += 1
        if not stat.S_ISREG(inode.mode):
            continue
        size += inode.size
        data = 0
        for place in bootstrap.file_chunks(inode.nid):
            if place is not None:
                blob, chunk = place
                used[blob.id, chunk.index] = chunk
                data += chunk.size
        holes += max(0, inode.size - data)
    by_blob = Counter(blob for blob, _ in used)
    return ImageFacts(
        bootstrap=digest,
        version=bootstrap.version,
        codec=bootstrap.codec,
        algorithm=bootstrap.algorithm,
        chunk_size=bootstrap.chunk_size,
        inodes=dict(kinds.most_common()),
        size=size,
        holes=holes,
        chunks=len(used),
        unique=sum(chunk.size for chunk in used.values()),
        stored=sum(chunk.stored_size for chunk in used.values()),
        blobs=tuple(_blob_facts(blob, by_blob[blob.id]) for blob in bootstrap.blobs),
    )


def survey_path(bootstrap: Bootstrap, path: str) -> PathFacts:
    """Tell of one path; raises NoEntry."""
    nid = _find(bootstrap, path)
    inode = bootstrap.inode(nid)
    kind = Kind.of(inode.mode)
    chunks: tuple[ChunkFacts, ...] = ()
    if kind is Kind.FILE:
        places = (place for place in bootstrap.file_chunks(nid) if place is not None)
        chunks = tuple(_chunk_facts(blob, chunk) for blob, chunk in places)
    return PathFacts(
        path="/" + path.strip("/"),
        inode=inode,
        target=_text(bootstrap.target(nid)) if kind is Kind.SYMLINK else "",
        xattrs={_text(name): value for name, value in bootstrap.xattrs(nid).items()},
        entries=sum(1 for _ in bootstrap.scan(nid, 0)) if kind is Kind.DIRECTORY else None,
        chunks=chunks,
    )


def _inodes(bootstrap: Bootstrap) -> Iterator[Inode]:
    """Yield every inode once, however many names and loops lead to it."""
    seen = {bootstrap.root}
    waiting = [bootstrap.root]
    while waiting:
        nid = waiting.pop()
        inode = bootstrap.inode(nid)
        yield inode
        if stat.S_ISDIR(inode.mode):
            for _, child, _ in bootstrap.scan(nid, 0):
                if child not in seen:
                    seen.add(child)
                    waiting.append(child)


def _find(bootstrap: Bootstrap, path: str) -> int:
    nid = bootstrap.root
    for name in path.split("/"):
        if name:
            found = bootstrap.lookup(nid, name.encode(errors="surrogateescape"))
            if found is None:
                raise NoEntry(path)
            nid = found
    return nid


def _blob_facts(blob: Blob, used: int) -> BlobFacts:
    return BlobFacts(blob.id, blob.size, blob.stored_size, blob.chunk_count, used)


def _chunk_facts(blob: Blob, chunk: Chunk) -> ChunkFacts:
    return ChunkFacts(
        chunk.digest, blob.id, chunk.index, chunk.offset, chunk.size, chunk.stored_size
    )


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")
