"""Slots: how many uploads go on at once, and who is next."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Slots:
    """A bounded number of uploads; the more urgent wait less, then those that came first.

    Tasks: ``turn`` awaits; all else happens between awaits.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.used = 0
        self.most = 0
        """Most that ever were used at once."""
        self._waiting: list[tuple[int, int, trio.Event]] = []
        self._tickets = itertools.count()

    @asynccontextmanager
    async def turn(self, priority: int, patience: float) -> AsyncIterator[bool]:
        """Hold a slot for the context; False where none was free within *patience* seconds."""
        given = await self._take(priority, patience)
        try:
            yield given
        finally:
            if given:
                self._give()

    async def _take(self, priority: int, patience: float) -> bool:
        if self.used < self.count and not self._waiting:
            self._use()
            return True
        turn = trio.Event()
        entry = (priority, next(self._tickets), turn)
        heapq.heappush(self._waiting, entry)
        try:
            with trio.move_on_after(patience):
                await turn.wait()
        except BaseException:
            if turn.is_set():
                self._give()
            else:
                self._forget(entry)
            raise
        if not turn.is_set():
            self._forget(entry)
        return turn.is_set()

    def _use(self) -> None:
        self.used += 1
        self.most = max(self.most, self.used)

    def _give(self) -> None:
        self.used -= 1
        if self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            self._use()
            turn.set()

    def _forget(self, entry: tuple[int, int, trio.Event]) -> None:
        self._waiting.remove(entry)
        heapq.heapify(self._waiting)


class Pace:
    """A rate that whoever takes bytes is held to."""

    def __init__(self, rate: float | None) -> None:
        """Let *rate* bytes per second pass, or any number of them."""
        self._rate = rate
        self._free_at = 0.0

    async def take(self, size: int) -> None:
        """Wait until *size* more bytes may pass."""
        if self._rate is None:
            return
        now = trio.current_time()
        due = max(now, self._free_at)
        self._free_at = due + size / self._rate
        await trio.sleep_until(due)
