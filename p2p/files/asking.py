"""Asking: which state of a file a scheduler knows, for a host that cannot reach the origin."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from chunkstore.origins.url import State
from p2p.control import nobody
from p2p.messages import Body, Changed, Description, Join
from p2p.swarm import Swarm

from .task import FileTask

ANSWER = 5.0
"""Seconds for a scheduler to be reached and to answer; one that knows nothing says nothing."""


class Asking:
    """A task that is joined for the answer alone."""

    def __init__(self, handle: int, task: FileTask) -> None:
        self.handle = handle
        self.told: Callable[[Body], None] = nobody
        self.name = task.id
        self.answered = trio.Event()
        self.state: State | None = None
        self._task = task

    def join(self) -> Sequence[Body]:
        """Return a JOIN that knows of no state."""
        description = Description("file", str(self._task.url)[:1024], 0, 0)
        return [Join(self.handle, self.name, description, [])]

    def heard(self, body: Body) -> None:
        """Take the answer."""
        if isinstance(body, Changed):
            self.state = State(body.length, body.validator)
            self.answered.set()

    def unscheduled(self) -> None:
        """Have nothing to do without a scheduler."""

    def act(self) -> None:
        """Have nothing to do."""


async def known_state(swarm: Swarm, task: FileTask) -> State | None:
    """Return the state that the swarm has of a file; None where it has none, or does not say."""
    asking = Asking(swarm.handle(), task)
    swarm.control.add(asking)
    try:
        with trio.move_on_after(ANSWER):
            await asking.answered.wait()
    finally:
        swarm.control.remove(asking)
    return asking.state
