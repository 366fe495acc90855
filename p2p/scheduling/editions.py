"""States of files: which one a task is of, the digests of its pieces, its end by another."""

from __future__ import annotations

from chunkstore.errors import Malformed
from p2p import messages
from p2p.messages import Description

from .digests import Digests
from .outbox import Outbox
from .resource import Host, Peer, Task
from .sources import Sources


class Editions:
    """The files of a scheduler."""

    def __init__(self, sources: Sources, outbox: Outbox) -> None:
        self._sources = sources
        self._outbox = outbox
        self._digests = Digests()

    @property
    def due(self) -> float:
        """When digests are to be passed on."""
        return self._digests.due

    def wanted(self, host: Host, body: messages.Join) -> Description:
        """Return what a newcomer is to take part in; it is told where the file is another now."""
        wanted = body.description
        state = self._digests.states.get(body.task)
        if wanted.kind == "file" and state is not None and wanted.validator != state.validator:
            self._outbox.say(host, messages.Changed(body.handle, state.length, state.validator))
            if not wanted.validator:
                return self._digests.described(body.task, wanted)
        return wanted

    def welcome(self, peer: Peer) -> None:
        """Tell a newcomer the digests that are known."""
        for body in self._digests.known(peer.task, peer.handle):
            self._outbox.say(peer.host, body)

    def publish(self, peer: Peer, body: messages.Publish, now: float) -> None:
        """Take digests, of who may publish them; two that contradict each other end the task."""
        task = peer.task
        if task.description.kind != "file":
            raise Malformed("digests of a blob's pieces")
        if body.first + len(body.digests) > task.description.pieces:
            raise Malformed("digests beyond the pieces", body.first, len(body.digests))
        if peer.host.kind == "seed":
            allowed = task.full
        elif self._sources.seeds:
            allowed = peer.granted
        else:  # what it has read before counts too, but not what somebody else is reading now
            allowed = task.full & ~(task.grants.bits & ~peer.granted)
        if self._digests.publish(task, body, allowed, now):
            self.over(task)

    def told(self, peer: Peer, body: messages.Origin, now: float) -> bool:
        """Take what an origin says of a file; return whether it was this peer's to tell."""
        task = peer.task
        if task.description.kind != "file":
            raise Malformed("an origin's state of a blob")
        if peer.host.kind != "seed" and self._sources.of(task, now):
            return False  # the seed will see for itself
        self._digests.told(task.id, body)
        return True

    def over(self, task: Task) -> None:
        """End a task whose state of the origin is no more."""
        task.move("change")
        state = self._digests.states.get(task.id)
        length = state.length if state else task.description.size
        validator = state.validator if state else ""
        for peer in task.peers:
            self._outbox.say(peer.host, messages.Changed(peer.handle, length, validator))

    def forget(self, task: bytes) -> None:
        """Drop what is known of a file that nobody takes part in."""
        self._digests.states.pop(task, None)

    def tell(self, now: float) -> None:
        """Pass on the digests that are due."""
        for task, body in self._digests.taken(now):
            for peer in task.peers:
                self._outbox.say(peer.host, body(peer.handle))
