"""Whole files: what is known by the checksum of all of it alone, from peer to peer.

A hub tells no digests of chunks. So a file is offered when its checksum was found right here, and
not before: until then this host is in the task as one that only takes. A child asks for pieces by
their number, takes them on the parent's word as it takes them on the hub's, and checks the whole
when it has it; what was wrong then comes from the hub alone.

Nobody is granted such a piece: what no parent has is read at the hub at once, because others could
not have it from who reads it now.

Tasks: those of `Download`; a holding is looked at by the holdings' own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import trio
from blake3 import blake3

from chunkstore import Blob, Chunk, ChunkSource, Codec, Deliver
from chunkstore.blobcache import BlobCache
from chunkstore.cachefile import CacheFile
from chunkstore.checksum import Checksum
from chunkstore.ledger import Ledger
from chunkstore.provisional import Provisional
from chunkstore.whole import STEP
from p2p.download import Download
from p2p.holdings import Holding
from p2p.messages import Body, Description, Have, Parent, Parents
from p2p.source import PeerSource
from p2p.swarm import Swarm
from p2p.wishes import Wish

logger = logging.getLogger(__name__)

KIND = "whole"

FIRST_WORD = 0.5
"""Seconds from the beginning for which reads wait to hear what parents have."""


def whole_task(checksum: Checksum) -> bytes:
    """Return the name of the task that distributes the file with *checksum*."""
    return blake3(f"naiad whole file\0{checksum}\0{STEP}".encode()).digest()


class WholeHolding(Holding):
    """A file that is offered when it was checked."""

    def __init__(self, task: bytes, cache: BlobCache, shelf: Provisional) -> None:
        self._cache = cache
        self._whole = shelf
        self._opened = False
        super().__init__(task, shelf.files[0])

    @property
    def is_own(self) -> bool:
        """Whether its file is open for it, and is to be closed."""
        return self._opened

    def find(self, chunk: Chunk) -> CacheFile | None:
        """Return the file in which *chunk* is ready."""
        return super().find(chunk) if self._opened else None

    def chunk(self, piece: int) -> Chunk | None:
        """Return a piece as the chunk that it is known to be."""
        return self._whole.chunk(piece)

    def note(self, index: int) -> None:
        """Tell of a piece that was put just now, where it may be told of."""
        if self._opened:
            super().note(index)

    def refresh(self) -> None:
        """Look at the ready map, once the file was checked."""
        if not self._opened and self._whole.is_checked and not self.is_gone:
            try:
                self.file = self._cache.open(self._whole.blob)
            except OSError as exc:
                logger.info("not offered file=%s reason=%s", self._whole.whole.name, exc.strerror)
                return
            self._opened = True
        if self._opened:
            super().refresh()


class CheckedHolding(Holding):
    """A file that was checked once, offered by who has not mounted it."""

    def __init__(self, task: bytes, file: CacheFile, digests: Sequence[bytes]) -> None:
        self._digests = digests
        super().__init__(task, file)

    def chunk(self, piece: int) -> Chunk | None:
        """Return a piece as the chunk that it is known to be, if that is what is here."""
        if not 0 <= piece < min(len(self._digests), self.file.map.chunk_count):
            return None
        record = self.file.map.record(piece)
        if record is None or record.digest.raw != self._digests[piece]:
            return None
        place = record.offset, record.size
        return Chunk(piece, record.digest, *place, *place, Codec.NONE)


def describe(checksum: Checksum, size: int, count: int) -> Description:
    """Return the description of a file's task."""
    return Description(KIND, str(checksum), size, count)


class WholeDownload(Download):
    """A file's task at this host."""

    def __init__(
        self, handle: int, task: bytes, swarm: Swarm, shelf: Provisional, holding: WholeHolding
    ) -> None:
        whole = shelf.whole
        told = describe(whole.checksum, whole.size, whole.count)
        super().__init__(handle, task, told, swarm.parents, holding)
        self.chooser.offers = bool(holding.bits)
        self.shelf = shelf
        self._oriented = trio.Event()
        self._until = trio.current_time() + FIRST_WORD

    async def met_parents(self) -> None:
        """Wait until a parent has said what it has, in the first moments."""
        if self.scheduled:
            with trio.move_on_at(self._until):
                await self._oriented.wait()

    def parents_have(self, piece: int) -> bool:
        """Say whether a parent has a piece."""
        return any(link.have >> piece & 1 for link in self.chooser.links.values())

    def has(self, parent: Parent, body: Have) -> None:
        """Take what a parent has; raises Malformed."""
        super().has(parent, body)
        self._oriented.set()

    def heard(self, body: Body) -> None:
        """Take what the scheduler says; raises Malformed."""
        super().heard(body)
        if isinstance(body, Parents) and not body.parents:
            self._oriented.set()

    def changed(self, added: int, dropped: int) -> None:
        """Note what can be had here now, or no longer."""
        self.chooser.offers = self.chooser.offers or bool(added)
        super().changed(added, dropped)


Find = Callable[[str], Provisional | None]
"""Returns where a file is kept, by its blob's id."""


class Wholes:
    """The files of one image in a swarm."""

    def __init__(self, swarm: Swarm, cache: BlobCache, find: Find) -> None:
        self._swarm = swarm
        self._cache = cache
        self._find = find
        self._joined: dict[bytes, WholeDownload] = {}
        self._joining = trio.Lock()

    async def join(self, blob: Blob) -> WholeDownload | None:
        """Take part in the task of a file; None for what is none, and for one that was wrong."""
        shelf = self._find(blob.id)
        if shelf is None or shelf.is_suspect:
            return None
        task = whole_task(shelf.whole.checksum)
        async with self._joining:
            known = self._joined.get(task)
            if known is None:
                holding = WholeHolding(task, self._cache, shelf)
                known = WholeDownload(self._swarm.handle(), task, self._swarm, shelf, holding)
                self._swarm.holdings.add(holding)
                await self._swarm.take_part(known)
                self._joined[task] = known
            return known


class WholeSource(PeerSource):
    """An image's files out of the swarm, as far as hosts there have checked them."""

    def __init__(self, wholes: Wholes, origin: ChunkSource, ledger: Ledger) -> None:
        super().__init__(wholes.join, origin, ledger)
        self._wholes = wholes

    async def fetch(self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver) -> None:
        """Deliver *chunks* as they come; raises ChunkstoreError."""
        download = await self._wholes.join(blob)
        if download is None:
            await self._origin.fetch(blob, chunks, deliver)
            return
        self._downloads[blob.id] = download
        await download.met_parents()
        wishes, rest = [], []
        for chunk in chunks:
            if download.parents_have(chunk.index) and not download.wished(chunk.index):
                # Once the file was checked its chunks' digests are known here, too.
                real = download.shelf.chunk(chunk.index) or chunk
                known = real is not chunk
                wish = Wish(blob, real, deliver, self._origin, self._count, known=known)
                wishes.append(wish)
            else:
                rest.append(chunk)
        if wishes:
            await download.bring(wishes, self._urgent)
        if rest:
            await self._origin.fetch(blob, rest, deliver)

    async def take_all(
        self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver, patience: float
    ) -> bool:
        """Leave it to who asks chunk by chunk: nobody is granted such pieces."""
        return False
