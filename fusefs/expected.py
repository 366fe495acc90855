"""Expected: images that are mounted ahead, because whoever pulls them has told us of them.

Their layers are asked for one by one, and it is the last that needs the image mounted; by then it
is. Between the mount and the snapshot that is to keep it nothing but the pull does, so nobody else
may have it unmounted meanwhile; and when the pull is over, it goes if no snapshot came.

Tasks: one per image, in the nursery that is passed, as long as it is pulled.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from chunkstore import ChunkstoreError
from chunkstore.origins.credentials import Credential
from rafs import RafsError

from .errors import MountFailed

logger = logging.getLogger(__name__)

Name = tuple[str, str]
"""Repository and manifest."""

Mount = Callable[[], Awaitable[str]]
"""Mounts an image and returns what the store calls it."""

LetGo = Callable[[str], Awaitable[None]]
"""Has an image unmounted that no snapshot needs."""


@dataclass(slots=True)
class Pulled:
    """An image that is being pulled."""

    credential: Credential | None
    done: trio.Event = field(default_factory=trio.Event)
    """It was mounted, or not."""
    image: str = ""
    """What is mounted."""
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

    async def mounted(self, name: Name, credential: Credential | None) -> str:
        """Wait for an image that is expected; empty where it is not, or not by *credential*."""
        pulled = self._pulled.get(name)
        if pulled is None:
            return ""
        await pulled.done.wait()
        return pulled.image if pulled.credential == credential else ""

    @asynccontextmanager
    async def pulled(
        self, name: Name, credential: Credential | None, mount: Mount, let_go: LetGo
    ) -> AsyncIterator[None]:
        """Have an image mounted while the block lasts, and told to *let_go* after that."""
        pulled = self._pulled.get(name)
        if pulled is None:
            pulled = self._pulled[name] = Pulled(credential)
            self._nursery.start_soon(self._ahead, pulled, mount, let_go)
        pulled.count += 1
        try:
            yield
        finally:
            pulled.count -= 1
            if not pulled.count:
                del self._pulled[name]
                pulled.over.set()

    async def _ahead(self, pulled: Pulled, mount: Mount, let_go: LetGo) -> None:
        try:
            with trio.move_on_after(self._patience):
                pulled.image = await mount()
        except (MountFailed, ChunkstoreError, RafsError, OSError) as exc:
            # Whoever needs it tries again, and is told.
            logger.info("not mounted ahead: %s", exc)
        finally:
            pulled.done.set()
        await pulled.over.wait()
        if pulled.image:
            await let_go(pulled.image)
