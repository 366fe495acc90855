"""Flights: which chunks some store of this process is fetching, so that no other one does."""

from __future__ import annotations

from collections.abc import Callable

from .wanted import Key


class Flights:
    """The chunks in flight of one cache folder, whichever image they are fetched for.

    Tasks: of the event loop; no method awaits.
    """

    def __init__(self) -> None:
        self._followers: dict[Key, list[Callable[[], None]]] = {}

    def start(self, key: Key) -> bool:
        """Take *key* in hand; False where another store has it, see ``follow``."""
        if key in self._followers:
            return False
        self._followers[key] = []
        return True

    def follow(self, key: Key, ended: Callable[[], None]) -> None:
        """Have *ended* called when the store that has *key* is done with it, however that went."""
        self._followers[key].append(ended)

    def end(self, key: Key) -> None:
        """Let *key* go; never awaits, so a cancelled fetch leaves nothing locked."""
        for ended in self._followers.pop(key):
            ended()
