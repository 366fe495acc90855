"""Images of files that nobody has read yet: made of a listing with a checksum for each file.

A file of more than a chunk is a blob of its own, named by its checksum: so revisions of a model
share what they have in common. The others, of one chunk each, lie in one blob, far enough apart
that no request spans two of them. What a blob's bytes come from is told by the image itself: each
file has its checksum in an extended attribute, and the root says where all of it is from. The
digests of chunks are names only (``chunkstore.whole``).
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from chunkstore import Blob, Codec
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

_SLOT = 2 * STEP
"""Bytes of the stored blob that a small file has for itself."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that is listed."""

    path: str
    size: int
    checksum: Checksum


def encode(origin: str, files: Sequence[Unread], out: BinaryIO) -> None:
    """Write the bootstrap of *files*, which come from *origin*; raises BadSource."""
    root = folder()
    root.xattrs[ORIGIN] = origin.encode()
    blobs = _Blobs(origin)
    for file in sorted(files, key=lambda file: file.path):
        node = put(root, Listed(file.path.encode(), file.size), origin)
        node.xattrs[CHECKSUM] = str(file.checksum).encode()
        blobs.add(node, file.checksum)
    v6_encode.encode(root, blobs.entries(), blobs.chunks, out, chunk_size=STEP)


class _Blobs:
    """The blobs of an image, as far as its files need them; the last is the small files'."""

    def __init__(self, origin: str) -> None:
        self.chunks = ChunkList()
        self._origin = origin
        self._large: dict[Checksum, tuple[BlobEntry, Sequence[int]]] = {}
        self._small: list[tuple[Node, Checksum]] = []

    def add(self, node: Node, checksum: Checksum) -> None:
        """Give *node* its chunks, if it is a large file, or its turn among the small ones."""
        if node.size <= STEP:
            if node.size:
                self._small.append((node, checksum))
            return
        known = self._large.get(checksum)
        if known is None:
            known = self._large[checksum] = self._own(len(self._large), node.size, checksum)
            if len(self._large) >= MAX_BLOBS:
                raise BadSource(
                    f"{self._origin}: {MAX_BLOBS} files or more of over {STEP} bytes; "
                    "leave some out, or let naiad build make an image of it"
                )
        if known[0].blob.size != node.size:
            raise BadSource(f"{self._origin}: two sizes for {checksum}")
        node.chunks.extend(known[1])

    def entries(self) -> tuple[BlobEntry, ...]:
        """Return the blobs, once all files were added."""
        large = tuple(entry for entry, _ in self._large.values())
        return (*large, self._together(len(large))) if self._small else large

    def _own(self, blob: int, size: int, checksum: Checksum) -> tuple[BlobEntry, Sequence[int]]:
        numbers = []
        for index, start in enumerate(range(0, size, STEP)):
            length = min(STEP, size - start)
            place = index, start, length, start, length
            digest = placeholder(checksum, index).raw
            numbers.append(self.chunks.add(blob, digest, place, Codec.NONE))
        prefix = "" if checksum.kind is Kind.SHA256 else f"{checksum.kind.value}-"
        return _entry(prefix + checksum.raw.hex(), size, size, len(numbers)), numbers

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
    for path, nid in _files(image):
        size = image.attributes(nid)[5]
        if not size:
            continue
        checksum = Checksum.parse(image.xattrs(nid).get(CHECKSUM, b"").decode(errors="replace"))
        place = next(image.file_chunks(nid))
        if place is None:
            raise BadImage(f"{path}: a hole")
        blob, chunk = place
        whole = Whole(path, size, checksum, blob.id, chunk.index, chunk.stored_offset)
        found[blob.id].setdefault(chunk.index, whole)
    return {blob_id: [of[first] for first in sorted(of)] for blob_id, of in found.items()}


def nids(image: Bootstrap, checksum: Checksum) -> Iterator[int]:
    """Yield the files of *image* that have *checksum*."""
    wanted = str(checksum).encode()
    for _, nid in _files(image):
        if image.xattrs(nid).get(CHECKSUM) == wanted:
            yield nid


def _files(image: Bootstrap) -> Iterator[tuple[str, int]]:
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
