"""Jobs that run side by side and whose results are taken in the order they were handed in.

So what is built from the results does not depend on how many threads there are or which of them
is quick. At most *window* bytes of jobs are on their way: handing in one more first takes the
oldest results. Results are taken in the caller's own thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")

MAX_JOBS = 64
"""Jobs on their way at a time; a job of no bytes still holds a file open."""


class Ordered(Generic[T]):
    """A pool of threads, and the row of jobs whose results were not taken yet."""

    def __init__(self, threads: int, window: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "naiad-pack")
        self._window = window
        self._row: deque[tuple[Future[T], Callable[[T], None], int]] = deque()
        self._bytes = 0

    def run(self, job: Callable[[], T], take: Callable[[T], None], cost: int) -> None:
        """Start *job* of *cost* bytes; *take* gets its result after all results before it.

        Raises what an earlier job or its *take* raised.
        """
        while self._row and (self._bytes + cost > self._window or len(self._row) >= MAX_JOBS):
            self._take_one()
        self._row.append((self._pool.submit(job), take, cost))
        self._bytes += cost

    def drain(self) -> None:
        """Wait for every job and take its result."""
        while self._row:
            self._take_one()

    def _take_one(self) -> None:
        future, take, cost = self._row.popleft()
        self._bytes -= cost
        take(future.result())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        # After a failure what has not begun never does; what has is waited for, as it may hold
        # descriptors that the caller closes next.
        self._row.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)
