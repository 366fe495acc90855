"""Which tasks have something that ends by time alone, and when they are looked at next."""

from __future__ import annotations

from .resource import Task

TICK = 0.1
"""Seconds between looks while something ends by time."""


class Agenda:
    """Tasks to look at."""

    def __init__(self) -> None:
        self.due = float("inf")
        self._tasks: dict[Task, float] = {}
        """And when."""

    def watch(self, task: Task, now: float) -> None:
        """Look at a task at the next tick."""
        self._set(task, now + TICK)

    def hurry(self, task: Task, now: float) -> None:
        """Look at a task at once."""
        self._set(task, now)

    def taken(self, now: float) -> list[Task]:
        """Return the tasks to look at; those that need it again are to be watched again."""
        if now < self.due:
            return []
        ready = [task for task, when in self._tasks.items() if when <= now]
        for task in ready:
            del self._tasks[task]
        self.due = min(self._tasks.values(), default=float("inf"))
        return ready

    def _set(self, task: Task, when: float) -> None:
        self._tasks[task] = min(when, self._tasks.get(task, when))
        self.due = min(self.due, when)
