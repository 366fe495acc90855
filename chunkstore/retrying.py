"""An origin that is asked again: what broke off goes on from where it broke.

An attempt that brings nothing for *patience* seconds is given up. Between attempts there is a pause
that doubles, with jitter, or the one that the origin asked for: an error may carry ``retry_after``,
in seconds. Progress starts the count anew. When nothing has come for *deadline* seconds the error
of the last attempt is raised; any but Unreachable is raised at once, it would only be said
again.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from .errors import ChunkstoreError, Refused, Unreachable
from .source import Arrived, Origin

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds."""

WORTH_GOING_ON = 64 << 10
"""Bytes after which an attempt that broke is followed by the next one without a pause."""


class Retrying:
    """An origin that does not give up before *deadline* seconds without progress."""

    def __init__(
        self,
        origin: Origin,
        *,
        deadline: float,
        patience: float | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._origin = origin
        self._deadline = deadline
        self._patience = patience if patience is not None else deadline / 3
        self._uniform = uniform

    async def read(self, blob_id: str, start: int, into: memoryview, arrived: Arrived) -> None:
        """Fill *into*; raises what the origin says in the end."""
        done, pause = 0, FIRST_PAUSE
        moved = trio.current_time()

        while done < len(into):
            attempt = _Attempt(self._origin, self._patience, done, arrived)
            failure = await attempt.read(blob_id, start, into)
            if failure is None:
                return
            if not isinstance(failure, Unreachable) or isinstance(failure, Refused):
                raise failure
            came, done = attempt.done - done, attempt.done
            if came:
                moved = trio.current_time()
            if came >= WORTH_GOING_ON:
                pause = FIRST_PAUSE
                continue
            wait = failure.retry_after or self._uniform(pause / 2, pause)
            if trio.current_time() + wait > moved + self._deadline:
                raise failure
            await trio.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    def __repr__(self) -> str:
        return f"Retrying({self._origin!r})"


class _Attempt:
    """One request, watched for progress."""

    def __init__(self, origin: Origin, patience: float, done: int, arrived: Arrived) -> None:
        self._origin = origin
        self._patience = patience
        self._from = done
        self._arrived = arrived
        self._scope = trio.CancelScope()
        self.done = done
        """Bytes in place, with those of earlier attempts."""

    async def read(self, blob_id: str, start: int, into: memoryview) -> ChunkstoreError | None:
        """Ask for what is missing; return what went wrong."""
        self._scope.deadline = trio.current_time() + self._patience
        try:
            with self._scope, into[self._from :] as rest:
                await self._origin.read(blob_id, start + self._from, rest, self._tell)
        except ChunkstoreError as exc:
            return exc
        if self._scope.cancelled_caught:
            return Unreachable(
                f"blob {blob_id}: {self._origin!r} sent nothing for {self._patience:g} s"
            )
        return None

    def _tell(self, count: int) -> None:
        self.done = self._from + count
        self._scope.deadline = trio.current_time() + self._patience
        self._arrived(self.done)
