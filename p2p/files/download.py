"""FileDownload: a file's task at this host.

A child wants all of it (bulk); the `Chooser` says what to ask of whom, as for a blob's chunks. Two
things differ. A piece can be asked of a peer only when its digest is known: the scheduler tells it,
from seeds, or from whoever had the grant where there is no seed. And what this host holds counts,
for the scheduler, only when its digest was published, because nobody else could ask for it before.

Tasks: those of `Download`, and the caller's of ``complete``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from random import Random

import msgspec
import trio

from chunkstore import (
    Algorithm,
    Blob,
    Buffer,
    Changed,
    Chunk,
    ChunkSource,
    ChunkstoreError,
    Deliver,
    Digest,
    Malformed,
)
from chunkstore.ledger import Ledger
from p2p import messages, runs
from p2p.choosing.chooser import Chooser
from p2p.download import Download
from p2p.holdings import Holding
from p2p.messages import Body, Description
from p2p.parents import Parents
from p2p.wishes import Wish

from .origin import FromOrigin
from .store import FileStore
from .task import FileTask, Version

logger = logging.getLogger(__name__)

UNSCHEDULED, SCHEDULED = 3.0, 30.0
"""Seconds without a piece after which the origin is read without a grant, when no scheduler is
there to ask, and when there is one."""

UNGRANTED, ALONE = 8, 64
"""Pieces that are read so at a time: beside a scheduler, and while there is none."""

PER_MESSAGE = 1024
"""Digests of one PUBLISH."""

_UNKNOWN = Digest(Algorithm.BLAKE3, bytes(32))


def describe(task: FileTask, version: Version) -> Description:
    """Return what a seed must know to read the file; for nobody else."""
    return msgspec.structs.replace(
        outline(str(task.url), version),
        name=task.url.absolute,
        headers=list(task.headers),
        tag=task.tag,
        ignored=sorted(task.ignored),
        shared=task.shared,
    )


def outline(name: str, version: Version) -> Description:
    """Return what everybody may know; *name* is the url without its query."""
    length = version.length or 0
    return Description("file", name[:1024], length, version.count, validator=version.validator)


class FileDownload(Download):
    """One version of a file at this host."""

    def __init__(
        self,
        handle: int,
        store: FileStore,
        parents: Parents,
        holding: Holding,
        whole: Description | None = None,
    ) -> None:
        """Take part in the task of *store*'s file.

        *whole* is what seeds are told, by who wants to have all of it.
        """
        version = store.version
        public = outline(store.name, version)
        super().__init__(handle, version.id, whole or public, parents, holding)
        self.outline = public
        bulk = whole is not None
        self.chooser = Chooser(handle, version.task, self.outline, Random())
        self.chooser.want_all(bulk)
        self._store = store
        self._published = 0
        """Pieces whose digest others can know."""
        self._lacking = set(store.missing()) if bulk else set[int]()
        self._landing = trio.Event()
        self._origin: ChunkSource | None = None
        self._ledger = Ledger()
        self._moved: Callable[[], None] = _nothing
        self._scheduled = False
        self._alone = False
        """No scheduler was there when nothing came: everything is read until one is."""
        self._ungranted = set[int]()
        """Pieces that are being read without a grant."""
        self.failure: ChunkstoreError | None = None
        self.fresh = False
        """What is known of the origin's state, it said itself."""
        self.other: tuple[int, str] | None = None
        """The state that ended this one, as the scheduler told."""
        self._disbelieved = set[tuple[int, str]]()
        self._moved_once = False

    async def complete(self, origin: FromOrigin, ledger: Ledger, moved: Callable[[], None]) -> None:
        """Wait until all of the file is in the store; *origin* is read where a grant says so.

        *moved* is called for each piece. Raises Changed when the file is another one by now, else
        what kept it from coming.
        """
        self._origin, self._ledger, self._moved = _Publishing(self, origin), ledger, moved
        for piece in range(self._store.version.count):
            self._expect(piece)
        self.act()
        while self._lacking and self.failure is None:
            self._landing = trio.Event()
            if self._alone and len(self._ungranted) <= ALONE // 2:
                self._read_ungranted(ALONE)
            with trio.move_on_after(SCHEDULED if self._scheduled else UNSCHEDULED) as scope:
                await self._landing.wait()
            if scope.cancelled_caught and self._lacking:
                self._alone = not self._scheduled
                self._ungranted.clear()
                self._read_ungranted(ALONE if self._alone else UNGRANTED)
        if self.failure is not None:
            raise self.failure

    def disbelieve(self, states: Iterable[tuple[int, str]]) -> None:
        """Go on when *states* are told: the origin has said since that it has this one."""
        self._disbelieved.update(states)

    def publish(self, pieces: Iterable[int]) -> None:
        """Tell the digests of *pieces*, which this host has read at the origin."""
        bits = runs.of(pieces)
        for start, stop in _spans(bits):
            for first in range(start, stop, PER_MESSAGE):
                digests = [self._raw(n) for n in range(first, min(stop, first + PER_MESSAGE))]
                self.told(messages.Publish(self.handle, first, digests))
        self._published |= bits
        self.chooser.digests(bits)

    def tell_origin(self, length: int, validator: str) -> None:
        """Tell what the origin says of the file now."""
        self.told(messages.Origin(self.handle, length, validator))

    def put(self, piece: int) -> None:
        """Note that this host has read a piece at its origin, as a seed does."""
        self.publish([piece])
        self.chooser.holds(1 << piece, trio.current_time())
        self._holding.note(piece)
        self.act()

    # What the scheduler says.

    def join(self) -> Sequence[Body]:
        """Return what a scheduler is told when there is a session with it."""
        version = self._store.version
        said = list(super().join())
        if self.fresh:
            said.append(messages.Origin(self.handle, version.length or 0, version.validator))
        # What it does not know yet it believes of a seed; of others, where there is no seed.
        for first, digests in self._store.digests.runs(PER_MESSAGE):
            said.append(messages.Publish(self.handle, first, digests))
        self._scheduled, self._alone = True, False
        return said

    def unscheduled(self) -> None:
        """Note that there is no session with the scheduler any more."""
        super().unscheduled()
        self._scheduled = False
        self._landing.set()

    def heard(self, body: Body) -> None:
        """Take what the scheduler says; raises Malformed."""
        if isinstance(body, messages.Pieces):
            self._digests(body)
        elif isinstance(body, messages.Changed):
            self._changed(body)
        else:
            super().heard(body)

    def _digests(self, body: messages.Pieces) -> None:
        if body.first + len(body.digests) > self._store.version.count:
            raise Malformed("digests beyond the pieces", body.first, len(body.digests))
        self._store.note(body.first, body.digests)
        agreed = 0
        for piece, raw in enumerate(body.digests, body.first):
            if self._store.digests.raw(piece) == raw:
                agreed |= 1 << piece
                self._know(piece)
            else:
                logger.warning("another digest was published piece=%d", piece)
        self._published |= agreed
        self.chooser.digests(agreed)
        new = agreed & self._holding.bits & ~self.chooser.held
        here = runs.of(piece for piece in runs.numbers(new) if self._store.has(piece))
        self.chooser.holds(here, trio.current_time())
        if here:
            self.chooser.announce(trio.current_time())
        self.act()

    def _changed(self, body: messages.Changed) -> None:
        version = self._store.version
        state = body.length, body.validator
        if state == (version.length, version.validator) or state in self._disbelieved:
            return
        if self.fresh and not self._moved_once:
            # The origin was asked a moment ago: what the scheduler remembers is older.
            logger.info("scheduler knows another state length=%d", body.length)
            self._disbelieved.add(state)
            return
        self.other = state
        words = f"{self.outline.name}: another file by now, of {body.length} bytes"
        self._fail(Changed(words))

    # What the cache says.

    def _note(self, added: int, dropped: int) -> None:
        super()._note(added & self._published, dropped)
        if dropped and self.chooser.bulk and self._origin is not None:
            for piece in runs.numbers(dropped):
                if not self._store.has(piece):
                    self._lacking.add(piece)
                    self._expect(piece)

    # What is done about it.

    def _expect(self, piece: int) -> None:
        """Want a piece; one that is here but known to nobody is published when it is granted."""
        if self.chooser.held >> piece & 1 or piece in self._wishes or self._origin is None:
            return
        version = self._store.version
        chunk = self._store.chunk(piece)
        wish = Wish(
            version.blob(),
            chunk or version.chunk(piece, _UNKNOWN),
            self._keep,
            self._origin,
            self._count,
            known=chunk is not None,
        )
        self._wishes[piece] = wish

    def _know(self, piece: int) -> None:
        wish, chunk = self._wishes.get(piece), self._store.chunk(piece)
        if wish is not None and chunk is not None:
            wish.chunk, wish.known = chunk, True

    async def _keep(self, chunk: Chunk, data: Buffer) -> None:
        if not self._store.has(chunk.index):
            await self._store.put(chunk.index, data)

    def _count(self, size: int, stored_size: int) -> None:
        self._ledger.add("peer", chunks=1, size=size, stored_size=stored_size)

    def _landed(self, wish: Wish) -> None:
        super()._landed(wish)
        self._lacking.discard(wish.chunk.index)
        self._ungranted.discard(wish.chunk.index)
        self._moved_once = True
        self._landing.set()
        self._moved()

    def _end(self, wish: Wish, failure: ChunkstoreError) -> None:
        super()._end(wish, failure)
        if wish.chunk.index in self._lacking:
            self._fail(failure)

    def _fail(self, failure: ChunkstoreError) -> None:
        self.failure = self.failure or failure
        self._landing.set()

    def _read_ungranted(self, most: int) -> None:
        """Nothing came for long: read some of what is missing at the origin."""
        pieces = sorted(self._lacking - self._ungranted)[:most]
        if pieces:
            logger.info("reading without a grant first=%d count=%d", pieces[0], len(pieces))
            self._ungranted.update(pieces)
            self._read(pieces)

    def _unread(self, piece: int, wish: Wish, failure: ChunkstoreError) -> None:
        super()._unread(piece, wish, failure)
        self._ungranted.discard(piece)
        self._landing.set()

    def _raw(self, piece: int) -> bytes:
        raw = self._store.digests.raw(piece)
        assert raw is not None
        return raw


class _Publishing:
    """An origin whose pieces are published as they are read."""

    def __init__(self, download: FileDownload, origin: FromOrigin) -> None:
        self._download = download
        self._origin = origin

    async def fetch(self, blob: Blob, chunks: Sequence[Chunk], deliver: Deliver) -> None:
        """Deliver *chunks*, which are in the store then: so without their bytes."""
        by_piece = {chunk.index: chunk for chunk in chunks}

        async def publish(piece: int) -> None:
            self._download.publish([piece])
            chunk = by_piece.get(piece)
            if chunk is not None:
                await deliver(chunk, b"")

        here = [piece for piece in by_piece if self._origin.store.has(piece)]
        for piece in here:
            await publish(piece)
        rest = sorted(set(by_piece) - set(here))
        if rest and self._origin.store.version.in_order:
            await self._origin.read_through(publish)
        elif rest:
            await self._origin.bring(rest, publish)


def _nothing() -> None:
    """Have no use for how far it is."""


def _spans(bits: int) -> Iterable[tuple[int, int]]:
    flat = runs.encode(bits)
    return zip(flat[::2], flat[1::2], strict=True)
