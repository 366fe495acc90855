"""Images of files that nobody has read yet: made of a listing with a checksum for each file.

A file of more than a chunk is a blob of its own, named by its checksum: so revisions of a model
share what they have in common. The others, of one chunk each, lie in one blob, far enough apart
that no request spans two of them. What a blob's bytes come from is told by the image itself: each
file has its checksum in an extended attribute, and the root says where all of it is from. The
digests of chunks are names only (``chunkstore.whole``).

Where there are more large files than blobs, and for files that lie in a tar, whose checksum is all
that is known, there is a blob for the format's sake: `separate` shows what they are read from.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from chunkstore import Blob, Codec, Malformed
from chunkstore.checksum import Checksum, Kind
from chunkstore.whole import STEP, Whole, placeholder

from . import v6_encode
from .bootstrap import Bootstrap
from .errors import BadImage, BadSource
from .sources.listing import Listed, folder, put
from .stock import BLOCK
from .tree import Node
from .v6_chunklist import ChunkList
from .v6_tables import MAX_BLOBS, BlobEntry

CHECKSUM, ORIGIN = b"user.naiad.checksum", b"user.naiad.origin"
LAYER = b"user.naiad.layer"
"""Of a file in a tar: the tar's checksum and bytes, and where in it the file begins."""

_OWN = MAX_BLOBS - 2
"""Files that have a blob of their own in the bootstrap."""

_SLOT = 2 * STEP
"""Bytes of the stored blob that a small file has for itself."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that is listed."""

    path: str
    size: int
    checksum: Checksum
    """Of the file, or of the tar that it is in."""
    within: tuple[int, int] | None = None
    """The bytes of a tar that it is in, and where in that it begins."""
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Lying:
    """What a file's bytes are read from: all of a file that has a checksum, or a part of it."""

    checksum: Checksum
    whole_size: int
    offset: int
    size: int

    @property
    def blob_id(self) -> str:
        """The name of the blob."""
        return _blob_id(self.checksum)


def encode(origin: str, files: Sequence[Unread], out: BinaryIO) -> None:
    """Write the bootstrap of *files*, which come from *origin*; raises BadSource."""
    root = folder()
    root.xattrs[ORIGIN] = origin.encode()
    blobs = _Blobs(origin)
    for file in sorted(files, key=lambda file: file.path):
        node = put(root, Listed(file.path.encode(), file.size, file.mode), origin)
        if file.within is None:
            node.xattrs[CHECKSUM] = str(file.checksum).encode()
            blobs.add(node, file.checksum)
        else:
            size, offset = file.within
            node.xattrs[LAYER] = f"{file.checksum} {size} {offset}".encode()
            blobs.add_elsewhere(node, file.checksum)
    v6_encode.encode(root, blobs.entries(), blobs.chunks, out, chunk_size=STEP)


class _Blobs:
    """The blobs of an image, as far as its files need them; the last is the small files'."""

    def __init__(self, origin: str) -> None:
        self.chunks = ChunkList()
        self._origin = origin
        self._large: dict[Checksum, tuple[BlobEntry, Sequence[int]]] = {}
        self._small: list[tuple[Node, Checksum]] = []
        self._elsewhere: list[tuple[Node, Checksum]] = []

    def add(self, node: Node, checksum: Checksum) -> None:
        """Give *node* its chunks, if it is a large file, or its turn among the small ones."""
        if node.size <= STEP:
            if node.size:
                self._small.append((node, checksum))
            return
        known = self._large.get(checksum)
        if known is None and len(self._large) >= _OWN:
            self.add_elsewhere(node, checksum)
            return
        if known is None:
            known = self._large[checksum] = self._own(len(self._large), node.size, checksum)
        if known[0].blob.size != node.size:
            raise BadSource(f"{self._origin}: two sizes for {checksum}")
        node.chunks.extend(known[1])

    def add_elsewhere(self, node: Node, checksum: Checksum) -> None:
        """Give *node*, which is read from elsewhere, its turn for a place."""
        if node.size:
            self._elsewhere.append((node, checksum))

    def entries(self) -> tuple[BlobEntry, ...]:
        """Return the blobs, once all files were added."""
        found = [entry for entry, _ in self._large.values()]
        if self._elsewhere:
            found.append(self._placed(len(found)))
        if self._small:
            found.append(self._together(len(found)))
        return tuple(found)

    def _placed(self, blob: int) -> BlobEntry:
        """Return a blob that nobody reads, with the chunks of what is read from elsewhere."""
        named = hashlib.sha256(b"elsewhere\n" + self._origin.encode())
        index = offset = 0
        for node, checksum in self._elsewhere:
            named.update(f"\n{checksum} {node.size}".encode())
            for start in range(0, node.size, STEP):
                length = min(STEP, node.size - start)
                place = index, offset, length, offset, length
                digest = placeholder(checksum, index).raw
                node.chunks.append(self.chunks.add(blob, digest, place, Codec.NONE))
                index, offset = index + 1, offset + -(-length // BLOCK) * BLOCK
        return _entry(named.hexdigest(), offset, offset, index)

    def _own(self, blob: int, size: int, checksum: Checksum) -> tuple[BlobEntry, Sequence[int]]:
        numbers = []
        for index, start in enumerate(range(0, size, STEP)):
            length = min(STEP, size - start)
            place = index, start, length, start, length
            digest = placeholder(checksum, index).raw
            numbers.append(self.chunks.add(blob, digest, place, Codec.NONE))
        return _entry(_blob_id(checksum), size, size, len(numbers)), numbers

    def _together(self, blob: int) -> BlobEntry:
        named = hashlib.sha256(self._origin.encode())
        offset = 0
        for index, (node, checksum) in enumerate(self._small):
            named.update(f"\n{checksum} {node.size}".encode())
            place = index, offset, node.size, index * _SLOT, node.size
            digest = placeholder(checksum, 0).raw
            node.chunks.append(self.chunks.add(blob, digest, place, Codec.NONE))
            offset += -(-node.size // BLOCK) * BLOCK
        count = len(self._small)
        return _entry(named.hexdigest(), offset, count * _SLOT, count)


def _blob_id(checksum: Checksum) -> str:
    prefix = "" if checksum.kind is Kind.SHA256 else f"{checksum.kind.value}-"
    return prefix + checksum.raw.hex()


def _entry(blob_id: str, size: int, stored_size: int, count: int) -> BlobEntry:
    return BlobEntry(Blob(blob_id, size, stored_size, count), STEP, Codec.NONE)


def origin_of(image: Bootstrap) -> str:
    """Return where *image*'s files are from; raises BadImage for an image of another kind."""
    found = image.xattrs(image.root).get(ORIGIN)
    if found is None:
        raise BadImage("not an image of a hub's files")
    return found.decode(errors="replace")


def wholes(image: Bootstrap) -> Mapping[str, Sequence[Whole]]:
    """Return the files of each blob of *image*, in their order there; raises BadImage."""
    found: dict[str, dict[int, Whole]] = {blob.id: {} for blob in image.blobs}
    for path, nid in files(image):
        size = image.attributes(nid)[5]
        if not size:
            continue
        tar = _within(image, nid, size)
        if tar is not None:
            name = f"layer {tar.checksum}"
            whole = Whole(name, tar.whole_size, tar.checksum, tar.blob_id, 0, 0)
        else:
            place = next(image.file_chunks(nid))
            if place is None:
                raise BadImage(f"{path}: a hole")
            blob, chunk = place
            checksum = _checksum(image, nid)
            whole = Whole(path, size, checksum, blob.id, chunk.index, chunk.stored_offset)
        found[whole.blob_id].setdefault(whole.first, whole)
    return {blob_id: [of[first] for first in sorted(of)] for blob_id, of in found.items()}


def nids(image: Bootstrap, checksum: Checksum) -> Iterator[int]:
    """Yield the files of *image* that have *checksum*."""
    wanted = str(checksum).encode()
    for _, nid in files(image):
        xattrs = image.xattrs(nid)
        if wanted in (xattrs.get(CHECKSUM), xattrs.get(LAYER, b"").partition(b" ")[0]):
            yield nid


def lying(image: Bootstrap, nid: int) -> Lying | None:
    """Return what a file is read from, if not from where the bootstrap says; raises BadImage."""
    size = image.attributes(nid)[5]
    tar = _within(image, nid, size)
    if tar is not None or size <= STEP:
        return tar
    whole = Lying(_checksum(image, nid), size, 0, size)
    place = next(image.file_chunks(nid))
    return None if place is None or place[0].id == whole.blob_id else whole


def _within(image: Bootstrap, nid: int, size: int) -> Lying | None:
    """Return the part of a tar that a file is; None for one that is in none."""
    told = image.xattrs(nid).get(LAYER) if size else None
    if told is None:
        return None
    try:
        checksum, whole, offset = told.decode().split(" ")
        found = Lying(Checksum.parse(checksum), int(whole), int(offset), size)
    except (ValueError, Malformed) as exc:
        raise BadImage(f"inode {nid}: {LAYER.decode()}: {exc}") from exc
    if not 0 <= found.offset <= found.whole_size - size <= 1 << 44:
        raise BadImage(f"inode {nid}: {LAYER.decode()}: no place for {size} bytes")
    return found


def _checksum(image: Bootstrap, nid: int) -> Checksum:
    return Checksum.parse(image.xattrs(nid).get(CHECKSUM, b"").decode(errors="replace"))


def files(image: Bootstrap) -> Iterator[tuple[str, int]]:
    """Yield the regular files with their paths."""
    pending = [("", image.root)]
    while pending:
        path, nid = pending.pop()
        for name, child, _ in image.scan(nid, 0):
            below = f"{path}/{name.decode()}" if path else name.decode()
            if stat.S_ISDIR(image.attributes(child)[0]):
                pending.append((below, child))
            else:
                yield below, child
