"""Warming: files that somebody wants on this node before they are read, and how far that is.

Who asks for the same paths again is told how far they are; so a caller follows its own request, and
one whose daemon died in between begins it anew by asking on.

Tasks: `run` owns a task per request that is under way.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import msgspec
import trio

from chunkstore import ChunkstoreError
from rafs import NoEntry

from .errors import FusefsError
from .tree import Reader, Tree

STEP = 1 << 20
"""Bytes asked for at once."""

UNDER_WAY = 64
"""Steps of one request that are under way; the reader bounds those of all."""

REMEMBERED = 32
"""Requests that can be asked about; the oldest that has ended is forgotten for another."""

_PAUSE = 0.05
"""Seconds until a reader without room is asked again."""

_LINKS = 40
"""Symlinks followed on the way to a file, as the kernel does."""


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a caller asks for."""

    paths: tuple[str, ...] = ()
    """Files and folders, from the image's root on; none is all there is."""

    @classmethod
    def parse(cls, argument: bytes) -> Wish:
        """Read what a caller sent; raises FusefsError."""
        try:
            return msgspec.json.decode(argument, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise FusefsError(f"not a request to warm: {exc}") from exc


class Warming:
    """The requests of one image."""

    def __init__(self, tree: Tree, reader: Reader) -> None:
        self._tree = tree
        self._reader = reader
        self._jobs: dict[tuple[str, ...], _Job] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Carry out requests until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await trio.sleep_forever()

    async def ask(self, argument: bytes) -> Mapping[str, object]:
        """Begin what *argument* asks for, or say how far it is.

        Raises FusefsError for what cannot be understood or is not there.
        """
        wish = Wish.parse(argument)
        job = self._jobs.get(wish.paths)
        if job is None:
            job = self._begin(wish.paths)
        told = job.told()
        if job.ended:
            del self._jobs[wish.paths]  # who asks once more begins anew
        return told

    def _begin(self, paths: tuple[str, ...]) -> _Job:
        if self._nursery is None:
            raise FusefsError("the image is being closed")
        if len(self._jobs) >= REMEMBERED:
            ended = next((known for known, job in self._jobs.items() if job.ended), None)
            if ended is None:
                raise FusefsError(f"{REMEMBERED} requests to warm are under way already")
            del self._jobs[ended]
        try:
            tops = [_resolved(self._tree, path) for path in paths] or [self._tree.root]
        except NoEntry as exc:
            raise FusefsError(str(exc)) from exc
        job = _Job(self._tree, self._reader, list(dict.fromkeys(_files(self._tree, tops))))
        self._jobs[paths] = job
        self._nursery.start_soon(job.run)
        return job


class _Job:
    """One request."""

    def __init__(self, tree: Tree, reader: Reader, files: Sequence[int]) -> None:
        self._tree = tree
        self._reader = reader
        self._files = [(nid, tree.attributes(nid)[5]) for nid in files]
        self._total = sum(size for _, size in self._files)
        self._here = self._failed = 0
        self._places = trio.Semaphore(UNDER_WAY)
        self._last_error = ""

    @property
    def ended(self) -> bool:
        return self._here + self._failed == self._total

    def told(self) -> Mapping[str, object]:
        return {
            "files": len(self._files),
            "bytes": self._total,
            "here_bytes": self._here,
            "failed_bytes": self._failed,
            "last_error": self._last_error,
        }

    async def run(self) -> None:
        for nid, size in self._files:
            for start in range(0, size, STEP):
                await self._places.acquire()
                await self._step(nid, start, min(start + STEP, size))

    async def _step(self, nid: int, start: int, stop: int) -> None:
        ended = partial(self._ended, stop - start)
        extents = self._tree.extents(nid, start, stop)
        while True:
            if self._reader.expect(extents, ended):
                return
            await trio.sleep(_PAUSE)  # no event tells of room, which readers may take at once

    def _ended(self, size: int, failure: ChunkstoreError | None) -> None:
        self._places.release()
        if failure is None:
            self._here += size
        else:
            self._failed += size
            self._last_error = str(failure)


def _resolved(tree: Tree, path: str) -> int:
    """Return the inode of *path*, following symlinks inside the image; raises NoEntry."""
    parts, trail, links = path.split("/"), "/", 0
    nid = tree.root
    while parts:
        trail = posixpath.normpath(posixpath.join(trail, parts.pop(0)))
        found = _walked(tree, [name for name in trail.split("/") if name])
        if found is None or links > _LINKS:
            raise NoEntry(f"{path}: not in the image")
        if stat.S_ISLNK(tree.attributes(found)[0]):
            links += 1
            target = tree.target(found).decode("utf-8", "surrogateescape")
            trail = "/" if target.startswith("/") else posixpath.dirname(trail)
            parts = [*target.strip("/").split("/"), *parts]
        else:
            nid = found
    return nid


def _walked(tree: Tree, names: Iterable[str]) -> int | None:
    nid = tree.root
    for name in names:
        if not stat.S_ISDIR(tree.attributes(nid)[0]):
            return None
        found = tree.lookup(nid, name.encode("utf-8", "surrogateescape"))
        if found is None:
            return None
        nid = found
    return nid


def _files(tree: Tree, tops: Sequence[int]) -> Iterator[int]:
    """Yield the regular files among *tops* and below them, each folder entered once."""
    waiting, seen = list(reversed(tops)), set(tops)
    while waiting:
        nid = waiting.pop()
        mode = tree.attributes(nid)[0]
        if stat.S_ISREG(mode):
            yield nid
        elif stat.S_ISDIR(mode):
            below = [child for _, child, _ in tree.scan(nid, 0) if child not in seen]
            seen.update(below)
            waiting.extend(reversed(below))
