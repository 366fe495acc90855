"""Whole files of an origin for code in a worker thread: fetched side by side, verified.

A large file comes in parts, as many at once as make a run; small ones come together with those
that are listed behind them, because each by itself would cost a round trip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import trio

from chunkstore.checksum import Checksum
from chunkstore.digest import Buffer
from chunkstore.errors import ChunkstoreError, Corrupt
from chunkstore.http.message import ignore
from chunkstore.source import Origin

RUN = 16 << 20
"""Bytes that are fetched at once."""

PART = 4 << 20
"""Bytes of one request."""

BLOCK = 1 << 20
"""Bytes that are handed on at once; a smaller file is a small one."""

TOGETHER = 64
"""Small files that are fetched at once; the client has its own bound on connections."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of an origin."""

    name: str
    """What the origin calls it."""
    size: int
    checksum: Checksum


class WholeFiles:
    """Reads *files*, best in their order; for one thread."""

    def __init__(
        self, origin: Origin, files: Sequence[File], token: trio.lowlevel.TrioToken
    ) -> None:
        """Ask *origin* as often as it takes, in the event loop of *token*."""
        self._origin = origin
        self._files = files
        self._numbers = {file.name: number for number, file in enumerate(files)}
        self._token = token
        self._here: dict[str, bytearray] = {}
        """Small files that came with another."""

    def blocks(self, name: str) -> Iterator[Buffer]:
        """Yield a file's bytes; raises ChunkstoreError, Corrupt in the end if they are wrong."""
        number = self._numbers[name]
        file = self._files[number]
        hasher = file.checksum.hasher(file.size)
        for run in self._runs(file) if file.size > BLOCK else [self._small(number)]:
            for at in range(0, len(run), BLOCK):
                block = memoryview(run)[at : at + BLOCK]
                hasher.update(block)
                yield block
        if hasher.digest() != file.checksum.raw:
            raise Corrupt(f"{name}: its bytes do not match {file.checksum}")

    def _runs(self, file: File) -> Iterator[bytearray]:
        for start in range(0, file.size, RUN):
            run = bytearray(min(RUN, file.size - start))
            with memoryview(run) as view:
                parts = range(0, len(run), PART)
                self._bring([(file.name, start + at, view[at : at + PART]) for at in parts])
            yield run

    def _small(self, number: int) -> bytearray:
        file = self._files[number]
        if file.name not in self._here:
            self._here = {}
            size = 0
            for other in self._files[number : number + TOGETHER]:
                if other.size <= BLOCK and size + other.size <= RUN:
                    self._here[other.name] = bytearray(other.size)
                    size += other.size
            self._bring([(name, 0, memoryview(data)) for name, data in self._here.items()])
        return self._here.pop(file.name)

    def _bring(self, parts: Iterable[tuple[str, int, memoryview]]) -> None:
        trio.from_thread.run(self._fill, parts, trio_token=self._token)

    async def _fill(self, parts: Iterable[tuple[str, int, memoryview]]) -> None:
        failures: list[ChunkstoreError] = []

        async def bring(name: str, start: int, into: memoryview) -> None:
            try:
                await self._origin.read(name, start, into, ignore)
            except ChunkstoreError as exc:
                failures.append(exc)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for part in parts:
                nursery.start_soon(bring, *part)
        if failures:
            raise failures[0]
