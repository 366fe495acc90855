"""What hosts are to be sent: said while a message is taken, sent when that is done."""

from __future__ import annotations

from collections.abc import Container

from p2p.messages import Body

from .resource import Host

Action = tuple[bytes, Body]
"""A host and what it is to be sent."""


class Outbox:
    """Messages to hosts, in order."""

    def __init__(self) -> None:
        self._said: list[Action] = []

    def say(self, host: Host, body: Body) -> None:
        """Let a host be sent a message."""
        self._said.append((host.id, body))

    def taken(self, hosts: Container[bytes]) -> list[Action]:
        """Return what was said since the last call to those that are still there."""
        said, self._said = self._said, []
        return [action for action in said if action[0] in hosts]
