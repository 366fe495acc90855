"""Page cache: files that are being read are brought into the kernel's page cache, ahead of readers.

A mapped file is read a fault at a time, each of which waits for the source. So verified chunks are
fetched ahead and pushed into the page cache while the file is open, and faults find them there.

Which files: a model, from its first READ on, known by how it begins (`models`); any other once it
was read in order for a while, or at many scattered places (`prefetch`), and is not here: what is
costs less to read as it is asked for, and `diskahead` reads on. A small file, or a few reads of a
large one, bring nothing but themselves. Which order: `feed`.

What the kernel's EROFS reads, it reads directly and caches itself: such files are only fetched
ahead. So is the shard that a model's index names next (`shards`), when the one before has all been
asked for and until it is read itself.

A push takes each page's lock in the kernel, and a page whose READ waits is locked until that is
answered. So pushes have threads of their own and hold nothing that a READ needs but a share of a
lease, and what a READ has asked for is left out. A thread that is stuck all the same comes free
when the READ is answered, at its deadline at the latest, or when the connection ends.

What was pushed is in memory twice, until the cache's own pages are let go of (`behind`).

Tasks: ``run`` owns two pushing tasks, one that measures memory, one that lets go, and one per model
whose index is being read. All else is called in the event loop and does not await.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial

import trio

from chunkstore import Buffer, ChunkstoreError
from fusefs.vfs import Vfs
from rafs import RafsError

from .behind import SLICE, Behind, Place
from .feed import LAST_LEVEL, Feed
from .lot import Lot, Store, notify_store
from .models import Kind, kind_of
from .room import SHARE, available
from .shards import Shards
from .tensors import BadIndex, More, bounds

logger = logging.getLogger(__name__)

PUSHERS = 2
"""Threads that push. One copies 3 GB/s; the second is for when the first one waits for a page."""

BATCH = 8
"""Steps that are pushed at once: going to a thread and back costs as much as a step's copy."""

LINGER = 0.002
"""Seconds for which fewer steps wait for others: they come in runs."""

FILES = 256
"""Files fed at once; the one read longest ago is given up for another."""

SMALLEST = 8 << 20
"""Bytes of a file that is worth it: smaller ones are fetched as they are read."""

HEAD = 64 << 10
"""Bytes of a model in which its index is looked for at first."""

_TICK = 0.25
"""Seconds between looks at the memory, and at files that found no room."""


class PageCache:
    """The files of one session that are fed."""

    def __init__(
        self,
        vfs: Vfs,
        *,
        store: Store | None = None,
        room: Callable[[], int] = available,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vfs = vfs
        self._store = store or notify_store
        self._room = room
        self._clock = clock
        self._feeds: OrderedDict[int, Feed] = OrderedDict()
        self._opens: dict[int, int] = {}
        self._closed: set[int] = set()
        """Files with a feed that nobody has open, as far as is known."""
        self._ahead: dict[int, int] = {}
        """Shards with a feed of which nothing was read yet, and their bytes."""
        self._shards = Shards(vfs, self._head)
        self._come: deque[tuple[int, Feed, int]] = deque()
        """Steps that are here and not pushed; a feed has a bounded number under way."""
        self._idle = trio.lowlevel.ParkingLot()
        self._threads = trio.CapacityLimiter(PUSHERS)
        self._behind = Behind()
        self._readers = trio.CapacityLimiter(1)
        """Threads that read indexes: a large one takes 20 ms."""
        self._nursery: trio.Nursery | None = None
        self.reads = 0
        """READs of data so far."""
        self.pushed = 0
        """Bytes."""
        self.pushes = 0

    def read(self, node: int, start: int, size: int) -> None:
        """Take note of a READ, before it is answered."""
        self.reads += 1
        feed = self._feeds.get(node)
        if feed is not None and (node in self._ahead or feed.over):
            self._end(node)  # the feed of one who reads pushes; what is here needs none
            feed = None
        if feed is not None:
            self._feeds.move_to_end(node)
            self._closed.discard(node)
            feed.read(start, start + size, self._clock())
            self._ask(node, feed)
        elif (begin := self._vfs.ahead(node, start, size)) is not None and self._nursery:
            pushes = self._vfs.caches(node)
            feed = Feed(self._vfs.attributes(node)[5], begin=begin, pushes=pushes)
            self._feed(node, feed, start, size)

    def pushes_to(self, node: int) -> bool:
        """Say whether what follows a READ of a file is pushed, as far as memory allows."""
        feed = self._feeds.get(node)
        return feed is not None and feed.pushes

    def began(self, node: int, head: Buffer) -> None:
        """Take note that *head*, the first bytes of a file, is about to be answered."""
        if node in self._feeds or self._nursery is None or (kind := kind_of(head)) is None:
            return
        size = self._vfs.attributes(node)[5]
        if size >= SMALLEST:
            feed = Feed(size, level=LAST_LEVEL, pushes=self._vfs.caches(node), again=True)
            self._feed(node, feed, 0, len(head))
            if kind is not Kind.PYTORCH:
                self._nursery.start_soon(self._learn, node, feed, size)
            self._nursery.start_soon(self._continue, node, feed)

    def opened(self, node: int) -> None:
        """Take note that a file was opened once more; a feed of it goes on."""
        self._opens[node] = self._opens.get(node, 0) + 1
        feed = self._feeds.get(node)
        if feed is not None and node not in self._ahead:
            self._closed.discard(node)
            feed.resume()
            self._ask(node, feed)

    def closed(self, node: int) -> None:
        """Take note that a file was closed; the last time halts its feed.

        A daemon that took another's place has not seen all opens: a reader that goes on has the
        file fed on.
        """
        opens = self._opens.pop(node, 1) - 1
        if opens > 0:
            self._opens[node] = opens
        elif node in self._feeds and node not in self._ahead:
            self._closed.add(node)
            self._feeds[node].halt()

    async def run(self) -> None:
        """Push what comes until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for _ in range(PUSHERS):
                    nursery.start_soon(self._push_all)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._leave_behind)
        finally:
            self._nursery = None

    async def _learn(self, node: int, feed: Feed, size: int) -> None:
        """Tell *feed* where the model's tensors lie; it ends where the file is no model."""
        needed = HEAD
        while self._feeds.get(node) is feed:
            head = await self._head(node, needed)
            if head is None:
                return
            try:
                found = await trio.to_thread.run_sync(bounds, head, size, limiter=self._readers)
            except BadIndex as exc:
                logger.debug("no model node=%x reason=%s", node, exc)
                self._end(node)
                return
            if not isinstance(found, More):
                feed.bound(found)
                return
            needed = found.size

    async def _continue(self, node: int, feed: Feed) -> None:
        """Learn which shard comes next, and begin it where *feed* has come to its end."""
        await self._shards.learn(node)
        if self._feeds.get(node) is feed and feed.spent:
            self._begin_after(node)

    def _begin_after(self, node: int) -> None:
        """Have the shard behind *node* fetched, as far ahead of readers as memory allows."""
        following = self._shards.after(node)
        if following is None or following in self._feeds:
            return
        try:
            size = self._vfs.attributes(following)[5]
        except RafsError:  # the image has gone
            return
        ahead = sum(self._ahead.values())
        if size >= SMALLEST and ahead < min(LAST_LEVEL, self._room() // SHARE):
            feed = self._feeds[following] = Feed(size, level=LAST_LEVEL, pushes=False)
            self._ahead[following] = size
            self._share()
            self._ask(following, feed)

    async def _head(self, node: int, size: int) -> Buffer | None:
        """Return a copy of the first *size* bytes of a file, None where they cannot be had."""
        come = trio.Event()
        try:
            if not self._vfs.expect(node, 0, size, lambda _: come.set()):
                return None
            await come.wait()
            data = self._vfs.look(node, 0, size)
        except (RafsError, ChunkstoreError):
            return None
        return None if data is None else bytes(data)

    def _feed(self, node: int, feed: Feed, start: int, size: int) -> None:
        self._feeds[node] = feed
        if len(self._feeds) > FILES:
            self._end(next(iter(self._feeds)))
        self._share()
        logger.debug("file is fed node=%x", node)
        feed.read(start, start + size, self._clock())
        self._ask(node, feed)

    def _end(self, node: int) -> None:
        self._feeds.pop(node, None)
        self._closed.discard(node)
        self._ahead.pop(node, None)

    def _ask(self, node: int, feed: Feed) -> None:
        """Have fetched what *feed* wants next."""
        while self._feeds.get(node) is feed and (step := feed.take()) is not None:
            start, stop = feed.span(step)
            if not self._expected(node, feed, step, start, stop):
                feed.put_back(step)
                return
        if feed.spent and self._feeds.get(node) is feed:
            self._begin_after(node)

    def _expected(self, node: int, feed: Feed, step: int, start: int, stop: int) -> bool:
        try:
            return self._vfs.expect(node, start, stop, partial(self._landed, node, feed, step))
        except (RafsError, ChunkstoreError):  # whoever reads there is told
            return False

    def _landed(self, node: int, feed: Feed, step: int, failure: ChunkstoreError | None) -> None:
        if failure is not None:
            feed.put_back(step, failed=True)
        else:
            self._come.append((node, feed, step))
            self._idle.unpark()

    async def _push_all(self) -> None:
        while True:
            while not self._come:
                await self._idle.park()
            if len(self._come) < BATCH:
                await trio.sleep(LINGER)
            batch = [self._come.popleft() for _ in range(min(BATCH, len(self._come)))]
            lot = Lot()
            try:
                for step in batch:
                    self._add(lot, *step)
                # Before the push, which takes milliseconds: the link must not wait for it.
                for node, feed in {node: feed for node, feed, _ in batch}.items():
                    self._ask(node, feed)
                await self._push(lot)
                for _, feed, number in batch:
                    feed.settle(number, self._clock())
            finally:
                lot.close()

    def _add(self, lot: Lot, node: int, feed: Feed, step: int) -> None:
        """Borrow what there is to push of a step; it is idle again where it is not all here."""
        try:
            if self._feeds.get(node) is feed and node not in self._closed:
                for start, stop in feed.landed(step, self._clock()):
                    lot.borrow(self._vfs, node, start, stop)
                feed.pushed()
                return
        except (ChunkstoreError, RafsError):
            pass  # gone again, or the image is
        feed.put_back(step)

    async def _push(self, lot: Lot) -> None:
        if not lot.pieces:
            return
        failures = await trio.to_thread.run_sync(
            lot.push, self._store, limiter=self._threads, abandon_on_cancel=True
        )
        for piece in lot.pieces:
            if piece not in failures:
                self.pushes += 1
                self.pushed += piece.size
                stop = piece.start + piece.size
                self._behind.pushed(piece.node, piece.start, stop, self._clock())
        for piece, reason in failures.items():
            # ENOENT: the kernel has forgotten the file. Nobody waits for what is pushed.
            logger.debug("not pushed node=%x reason=%s", piece.node, reason)
            self._end(piece.node)

    async def _watch(self) -> None:
        while True:
            if self._feeds:
                self._share()
                for node, feed in list(self._feeds.items()):
                    if feed.starves:
                        self._ask(node, feed)
            await trio.sleep(_TICK)

    async def _leave_behind(self) -> None:
        """Let go of the cache's pages of what was pushed."""
        alone = trio.CapacityLimiter(1)
        while True:
            await trio.sleep(_TICK)
            if self._behind:
                for place in self._behind.due(self._clock(), self._room() // SHARE):
                    left = await trio.to_thread.run_sync(self._let_go, place, limiter=alone)
                    self._behind.let_go(place, left, self._clock())

    def _let_go(self, place: Place) -> int:
        node, number = place
        try:
            return self._vfs.let_go(node, number * SLICE, (number + 1) * SLICE)
        except (RafsError, ChunkstoreError):  # the image has gone
            return 0

    def _share(self) -> None:
        """Divide what memory there is among the files."""
        limit = min(LAST_LEVEL, self._room() // SHARE // max(1, len(self._feeds)))
        for feed in self._feeds.values():
            feed.limit = limit
