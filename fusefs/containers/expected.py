"""Expected: images that are mounted ahead, because whoever pulls them has told us of them.

Their layers are asked for one by one, and the last needs no more than that it is known what the
image is; it is the first container that needs it mounted, and by then it is. Until the pull is over
nobody may have the image unmounted, which no snapshot keeps yet; then it goes if none came.

Tasks: one per image, in the nursery that is passed, as long as it is pulled and is being mounted.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from chunkstore import ChunkstoreError
from chunkstore.origins.credentials import Credential
from fusefs.errors import MountFailed
from rafs import RafsError

logger = logging.getLogger(__name__)

Name = tuple[str, str]
"""Repository and manifest."""

LetGo = Callable[[str], Awaitable[None]]
"""Has an image unmounted that no snapshot needs."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done with an image; each raises as its own errors say."""

    find: Callable[[], Awaitable[str]]
    """Returns what the store calls it."""
    mount: Callable[[str], Awaitable[None]]
    let_go: LetGo
    is_quick: Callable[[], bool]
    """Says whether the pull may go on before it is mounted."""


@dataclass(slots=True)
class Pulled:
    """An image that is being pulled."""

    credential: Credential | None
    image: str = ""
    """What it is, once that was found."""
    known: trio.Event = field(default_factory=trio.Event)
    """It was found, and a pull may go on with that; or not."""
    done: trio.Event = field(default_factory=trio.Event)
    """It was mounted, or not."""
    count: int = 0
    """Pulls."""
    over: trio.Event = field(default_factory=trio.Event)
    """There is none left."""


class Expected:
    """The images that are being pulled; *patience* seconds are given to mount each."""

    def __init__(self, nursery: trio.Nursery, patience: float) -> None:
        self._nursery = nursery
        self._patience = patience
        self._pulled: dict[Name, Pulled] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._pulled

    async def found(self, name: Name, credential: Credential | None) -> str:
        """Wait until it is known what an expected image is, and return that.

        Empty where it is not expected, not to be had, or not by *credential*.
        """
        pulled = self._pulled.get(name)
        if pulled is None:
            return ""
        await pulled.known.wait()
        return pulled.image if pulled.credential == credential else ""

    async def settled(self, name: Name) -> None:
        """Wait until an image is mounted, or was not to be, if it is expected."""
        if name in self._pulled:
            await self._pulled[name].done.wait()

    @asynccontextmanager
    async def pulled(
        self, name: Name, credential: Credential | None, work: Work
    ) -> AsyncIterator[None]:
        """Have an image found and mounted while the block lasts, and let go after that."""
        pulled = self._pulled.get(name)
        if pulled is None:
            pulled = self._pulled[name] = Pulled(credential)
            self._nursery.start_soon(self._ahead, name, pulled, work)
        pulled.count += 1
        try:
            yield
        finally:
            pulled.count -= 1
            pulled.over.set()

    async def _ahead(self, name: Name, pulled: Pulled, work: Work) -> None:
        try:
            with trio.move_on_after(self._patience):
                pulled.image = await work.find()
                if work.is_quick():
                    pulled.known.set()
                await work.mount(pulled.image)
        except (MountFailed, ChunkstoreError, RafsError, OSError) as exc:
            # Whoever needs it tries again, and is told.
            logger.info("not mounted ahead: %s", exc)
        finally:
            pulled.known.set()
            pulled.done.set()
        while pulled.count:
            pulled.over = trio.Event()
            await pulled.over.wait()
        del self._pulled[name]
        if pulled.image:
            await work.let_go(pulled.image)
