"""Given up: chunks that a reader has just waited for in vain.

When a read ahead fails, the kernel at once asks for the page that its program wants, once more. To
wait for that as long again would double every read deadline; so who asks so soon gets the same
answer. What else is asked for then, while nothing comes at all, does not wait for as long again
either: a program's fault may be several reads, one after the other. Pure: no clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from .errors import ChunkstoreError
from .wanted import Key

SOON = 1.0
"""Seconds for which an answer is given again: a program that tries again gets a new try. A busy
machine takes more than 0.2 from the answer to the kernel's question."""

AGAIN = 10
"""What a reader's deadline is divided by after another has just waited in vain."""


class GivenUp:
    """The failures of just now, by the chunks that did not come."""

    def __init__(self) -> None:
        self._failures: dict[Key, tuple[float, ChunkstoreError]] = {}
        """In the order of time."""
        self._silent_at = -math.inf
        """When a reader last gave up."""

    def note(self, keys: Iterable[Key], failure: ChunkstoreError, now: float) -> None:
        """Note that a reader of *keys* waited until *now*, and got *failure*."""
        self._silent_at = now
        for key in keys:
            self._failures.pop(key, None)
            self._failures[key] = now, failure

    def patience(self, deadline: float, since: float, moved: float) -> float:
        """Return for how long a reader waits that came at *since*.

        *moved* is when something last came.
        """
        silent = moved <= self._silent_at <= since < self._silent_at + deadline
        return deadline / AGAIN if silent else deadline

    def find(self, keys: Iterable[Key], now: float) -> ChunkstoreError | None:
        """Return why one of *keys* did not come just before *now*."""
        for key, (then, _) in list(self._failures.items()):
            if then + SOON > now:
                break
            del self._failures[key]
        found = (self._failures[key][1] for key in keys if key in self._failures)
        return next(found, None)
