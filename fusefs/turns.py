"""Turns: how pyfuse3's tasks wait for the kernel's next request.

By trio's own means each request costs two turns of the event loop: one for a lock that passes from
task to task, one for epoll. That is longer than most answers take, and a program that has got its
answer has often asked again by then. So whoever has answered looks for the next request at once
and answers that as well, for a while; then all others have their turn. Where programs ask one thing
after the other, the next request is worth being looked for a little longer than for a moment.

pyfuse3 looks up what it needs of trio by name, in a module that it lets others replace, as its own
support of asyncio does.

Tasks: of the event loop. What is here belongs to one session.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from types import SimpleNamespace

import pyfuse3
import trio

TURN = 0.001
"""Seconds after which others have their turn, however many requests there are."""

LINGER = 50e-6
"""Seconds for which a program's next request is looked for, again and again, where it asked a
moment ago. To sleep and be woken takes longer [measured: ``stat`` 100 us with, 60 us without]."""

PATIENCE = 8
"""Times that this may be in vain, less those that it was not, until it is left be for a while."""

TRIED_EVERY = 64
"""Requests after which it is tried anew."""

PREEMPTED, LEFT_BE = 500e-6, 256
"""Seconds between two looks that show that others want the processor, and requests for which it is
left to them: whoever sleeps gets it sooner than who does not."""


class Turn:
    """The lock of those who read requests: whoever gives it back may take it again at once.

    One who waits is woken when it is given back, and waits again where it has been taken by then:
    in the same turn of the event loop, that is, by whom it need not be passed from.
    """

    def __init__(self) -> None:
        self._taken = False
        self._woken = False
        """Somebody who waits has a turn to come."""
        self._lot = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        """Take it when it is free."""
        while self._taken:
            await self._lot.park()
            self._woken = False
        self._taken = True

    async def __aexit__(self, *_: object) -> None:
        """Give it back, without giving up the turn."""
        self._taken = False
        if not self._woken and self._lot:
            self._woken = True
            self._lot.unpark()


class Readiness:
    """Waits for a handle to be readable, for a while without giving up the turn."""

    def __init__(
        self, *, linger: float = LINGER, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._linger = linger
        self._clock = clock
        self._since = -TURN
        self._patience = PATIENCE
        self._untried = 0
        """Requests since it was of no use to linger."""
        self._polls: dict[int, Callable[[float], object]] = {}

    async def wait(self, fd: int) -> None:
        """Return when *fd* is readable."""
        now = self._clock()
        if now - self._since < TURN and self._soon(self._poll(fd), now):
            return
        await trio.lowlevel.wait_readable(fd)
        self._since = self._clock()

    def _soon(self, poll: Callable[[float], object], now: float) -> bool:
        """Say whether it is readable at once, or soon where that has been worth while."""
        if poll(0):
            return True
        if self._patience <= 0:
            self._untried += 1
            if self._untried < TRIED_EVERY:
                return False
            self._untried, self._patience = 0, 1
        end = now + self._linger
        while now < end:
            ready, looked = bool(poll(0)), now
            now = self._clock()
            if now - looked > PREEMPTED:
                self._patience, self._untried = 0, -LEFT_BE
                return ready
            if ready:
                self._patience = min(self._patience + 1, PATIENCE)
                return True
        self._patience -= 1
        return False

    def _poll(self, fd: int) -> Callable[[float], object]:
        poll = self._polls.get(fd)
        if poll is None:
            watched = select.poll()
            watched.register(fd, select.POLLIN)
            poll = self._polls[fd] = watched.poll
        return poll


def take_turns() -> None:
    """Have pyfuse3's next session wait so."""
    lowlevel = SimpleNamespace(
        wait_readable=Readiness().wait,
        current_task=trio.lowlevel.current_task,
        current_trio_token=trio.lowlevel.current_trio_token,
        notify_closing=trio.lowlevel.notify_closing,
    )
    pyfuse3.trio = SimpleNamespace(  # type: ignore[attr-defined]
        Lock=Turn,
        lowlevel=lowlevel,
        open_nursery=trio.open_nursery,
        from_thread=trio.from_thread,
        ClosedResourceError=trio.ClosedResourceError,
    )
