"""The bodies of the peer protocol's messages; PROTOCOL.md says what they mean.

Arrays on the wire, in the order of the fields; new fields go to the end and have a default.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Handle = Annotated[int, Meta(ge=0, lt=1 << 32)]
"""A task's number in one session."""

Number = Annotated[int, Meta(ge=0, lt=1 << 24)]
"""A piece's number."""

Size = Annotated[int, Meta(ge=0, le=1 << 62)]
"""Bytes."""

HostId = Annotated[bytes, Meta(min_length=16, max_length=16)]
TaskId = Annotated[bytes, Meta(min_length=32, max_length=32)]
Raw = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""A BLAKE3 digest."""

Text = Annotated[str, Meta(max_length=1024)]
Long = Annotated[str, Meta(max_length=16 << 10)]
"""A url or the value of a header: signed urls and tokens are long."""

Seconds = Annotated[float, Meta(ge=0)]
Runs = Annotated[list[Annotated[int, Meta(ge=0, le=1 << 24)]], Meta(max_length=1 << 16)]
"""start, stop, start, stop …, rising and not touching; `runs.checked` sees to that."""


class Body(Struct, frozen=True, array_like=True):
    """The body of one message."""


class Hello(Body, frozen=True):
    """The first frame of both sides."""

    oldest: int
    newest: int
    """Versions understood."""
    host: HostId
    kind: Text
    """``peer``, ``seed`` or ``scheduler``."""
    features: list[Text] = []


class Goodbye(Body, frozen=True):
    """The session ends."""

    code: Text
    text: Text = ""


class Follow(Body, frozen=True):
    """Ask for a task's availability."""

    handle: Handle
    task: TaskId
    description: Description | None = None
    """What a seed needs to fetch pieces."""
    quiet: bool = False
    """Not even that: the sender asks only for what a scheduler told it of."""


class Unfollow(Body, frozen=True):
    """No longer."""

    handle: Handle


class Have(Body, frozen=True):
    """What can be had from the sender."""

    handle: Handle
    whole: bool
    add: Runs
    drop: Runs = []


class Busy(Body, frozen=True):
    """Not now."""

    retry_after: Seconds


class Failed(Body, frozen=True):
    """A seed could not get it."""

    code: Text
    text: Text = ""


class Complaint(Body, frozen=True):
    """A piece did not match its digest."""

    handle: Handle
    piece: Number


class Description(Body, frozen=True):
    """What a task is."""

    kind: Text
    """``blob``, ``file``, or ``whole``: a file that is known by its checksum alone."""
    name: Long
    """The blob's id, the file's url, or its checksum."""
    size: Size
    """Decoded bytes; 0: not known yet."""
    pieces: Annotated[int, Meta(ge=0, le=1 << 24)]
    origin: Text = ""
    """Where a seed finds it: a folder's url, or a repository of a registry."""
    validator: Text = ""
    """Of a file: which state of the origin; empty: whatever is known."""
    headers: Annotated[list[tuple[Text, Long]], Meta(max_length=64)] = []
    """Of a file: what its origin wants to be sent."""
    tag: Text = ""
    """Of a file, as are the following: what its task's name is made of besides."""
    ignored: Annotated[list[Text], Meta(max_length=64)] = []
    shared: bool = False


class Announce(Body, frozen=True):
    """A host says what it is."""

    address: Text
    """``HOST:PORT`` where it uploads; empty: downloads only."""
    kind: Text
    idc: Text = ""
    location: Text = ""
    """``country|province|city``, at most five parts."""
    slots: Annotated[int, Meta(ge=0, le=50_000)] = 50
    """Uploads at once."""
    name: Text = ""
    """For people: the machine's name."""


class Join(Body, frozen=True):
    """A host takes part in a task."""

    handle: Handle
    task: TaskId
    description: Description
    have: Runs
    bulk: bool = False
    parents: Annotated[list[HostId], Meta(max_length=64)] = []
    """Whom it takes pieces from already: another scheduler, or this one before, named them."""


class Leave(Body, frozen=True):
    """No longer."""

    handle: Handle


class Held(Body, frozen=True):
    """What changed of what a host holds."""

    handle: Handle
    add: Runs
    drop: Runs = []


class Want(Body, frozen=True):
    """Pieces that are missed and that no parent has."""

    handle: Handle
    pieces: Runs
    urgent: bool = False


class Unwant(Body, frozen=True):
    """No longer."""

    handle: Handle
    pieces: Runs


class Return(Body, frozen=True):
    """Grants that came to nothing."""

    handle: Handle
    pieces: Runs
    reason: Text = ""


class Report(Body, frozen=True):
    """What a parent was like since the last report."""

    handle: Handle
    parent: HostId
    served: Size = 0
    """Pieces."""
    size: Size = 0
    """Bytes."""
    seconds: Seconds = 0.0
    """Seconds for which requests were open."""
    corrupt: Size = 0
    timeouts: Size = 0
    absent: Size = 0


class Need(Body, frozen=True):
    """A parent's place is empty, or a parent is useless."""

    handle: Handle
    useless: Annotated[list[HostId], Meta(max_length=64)] = []
    """Parents to be replaced: they have nothing that the child lacks."""
    failed: Annotated[list[HostId], Meta(max_length=64)] = []
    """Hosts that did not answer, or wrongly: what they hold is no copy for this child."""


class Publish(Body, frozen=True):
    """Digests of a file's pieces, from who read its origin."""

    handle: Handle
    first: Number
    digests: Annotated[list[Raw], Meta(max_length=4096)]


class Origin(Body, frozen=True):
    """What the origin says of a file now."""

    handle: Handle
    length: Size
    validator: Text


class Parent(Body, frozen=True):
    """Somebody to download from."""

    host: HostId
    address: Text
    kind: Text


class Parents(Body, frozen=True):
    """All the parents a host has for a task."""

    handle: Handle
    parents: Annotated[list[Parent], Meta(max_length=64)]
    source: Parent | None = None
    """A seed; None: the origin."""
    turn: Number = 0
    turns: Number = 0
    """Pieces whose number leaves *turn* when it is divided by *turns* are to be taken from *source*
    while there is no scheduler; no turns: none are."""
    spare: Annotated[list[Parent], Meta(max_length=64)] = []
    """Parents while there is no scheduler, of who takes only what is read."""


class Grant(Body, frozen=True):
    """Take these from the source."""

    handle: Handle
    pieces: Runs
    source: Parent | None
    """None: the origin."""
    lasts: Seconds


class Hint(Body, frozen=True):
    """What was wanted can be had there."""

    handle: Handle
    pieces: Runs
    parent: Parent


class Pieces(Body, frozen=True):
    """Digests of a file's pieces."""

    handle: Handle
    first: Number
    digests: Annotated[list[Raw], Meta(max_length=4096)]


class Changed(Body, frozen=True):
    """The origin's file is another one now."""

    handle: Handle
    length: Size
    validator: Text


class Wait(Body, frozen=True):
    """Somebody is getting these, or the asker's turn comes."""

    handle: Handle
    pieces: Runs
    seconds: Seconds
    """After which, if nothing has come, they are to be wanted again."""


class Aside(Body, frozen=True):
    """A parent that is set aside."""

    host: HostId
    seconds: Seconds
    """For how long from now."""
    reason: Text
