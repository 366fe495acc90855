"""Demand: which chunks a reader waits for now, for sources that can hurry."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .wanted import Key

Listener = Callable[[Key], None]


class Demand:
    """The chunks that readers wait for; a store says it, its sources may look and listen.

    Tasks: of the event loop; no method awaits.
    """

    def __init__(self) -> None:
        self._keys: set[Key] = set()
        self._listeners: list[Listener] = []

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def add(self, keys: Iterable[Key]) -> None:
        """Note that a reader waits for *keys*; listeners are told of those that are new."""
        for key in keys:
            if key not in self._keys:
                self._keys.add(key)
                for listener in self._listeners:
                    listener(key)

    def discard(self, key: Key) -> None:
        """Note that nobody waits for *key* any more."""
        self._keys.discard(key)

    def listen(self, listener: Listener) -> None:
        """Have *listener* told of every chunk that a reader begins to wait for."""
        self._listeners.append(listener)
