"""Which tasks have something that ends by time alone, and when they are looked at next."""

from __future__ import annotations

from .resource import Task

TICK = 0.1
"""Seconds between looks while something ends by time."""


class Agenda:
    """Tasks to look at."""

    def __init__(self) -> None:
        self.due = float("inf")
        self._tasks: dict[Task, None] = {}

    def watch(self, task: Task, now: float) -> None:
        """Look at a task at the next tick."""
        self._tasks[task] = None
        self.due = min(self.due, now + TICK)

    def hurry(self, task: Task, now: float) -> None:
        """Look at a task at once."""
        self._tasks[task] = None
        self.due = min(self.due, now)

    def taken(self) -> list[Task]:
        """Return the tasks to look at; those that need it again are to be watched again."""
        tasks, self._tasks = list(self._tasks), {}
        self.due = float("inf")
        return tasks
