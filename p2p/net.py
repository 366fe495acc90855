"""Net: how hosts reach each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

import trio

from .line import Line, dialled, joined, split
from .security import Remote, Role, Security

Admit = Callable[[trio.abc.Stream], Awaitable[None]]
"""Takes an accepted connection over, and closes it."""


class Net(Protocol):
    """Connections to and from other hosts."""

    def dial(
        self, address: str, role: Role | None = None
    ) -> AbstractAsyncContextManager[tuple[Line, Remote]]:
        """Be connected to *address*, whose certificate must say *role*.

        Raises Gone, Untrusted or Unsafe.
        """
        ...

    async def listen(
        self,
        address: str,
        admit: Admit,
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Hand connections to *admit* until cancelled; started with the address as it is.

        Raises Unsafe for one beyond loopback without TLS, OSError for one that cannot be had.
        """
        ...


class Tcp:
    """TCP, with TLS where *security* has papers."""

    def __init__(self, security: Security) -> None:
        self._security = security

    def dial(
        self, address: str, role: Role | None = None
    ) -> AbstractAsyncContextManager[tuple[Line, Remote]]:
        """Connect."""
        return dialled(address, self._security, role)

    async def listen(
        self,
        address: str,
        admit: Admit,
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen; port 0 is a free one."""
        host, port = split(address)
        self._security.check(host)
        try:
            listeners = await trio.open_tcp_listeners(port, host=host or None)
        except OSError as exc:
            raise OSError(exc.errno, f"cannot listen at {address}: {exc.strerror}") from exc
        actual = joined(host, listeners[0].socket.getsockname()[1])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(trio.serve_listeners, admit, listeners, handler_nursery=nursery)
            )
            task_status.started(actual)
