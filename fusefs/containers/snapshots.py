"""Snapshots: containerd's layer stacks, as values and rules; no disk, no clock.

::

    prepare ──► active ──commit──► committed ◄── parent of ── active, view, committed
    view ─────► view

A snapshot stands on nothing or on a committed one. An ordinary one has a folder with what it adds.
Of a lazily loaded image every data layer is a snapshot without anything, and the topmost layer is
one whose folder is the mounted image: that shows all layers below, so nothing below it is stacked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fusefs.containerd.messages import Kind, Labels
from fusefs.errors import BadRequest, NotInThisState

LONGEST_KEY = 32 << 10
"""Bytes; what containerd's own store takes."""

LONGEST_LABEL = 4096
"""Bytes of name and value together; containerd's limit."""

DATA = ""
"""The image of a snapshot that stands for one data layer of a lazily loaded image."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a snapshot takes on the disk."""

    size: int = 0
    """Bytes."""
    inodes: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot as it is stored."""

    id: int
    """Also the name of its folder; never given again."""
    key: str
    kind: Kind
    parent: str
    """The parent's key; empty: it has none."""
    labels: Labels
    created: int
    """Nanoseconds since 1970."""
    updated: int
    usage: Usage = Usage()
    """Of a committed one."""
    image: str | None = None
    """None: an ordinary layer; `DATA`; or the lazily loaded image that is mounted, as JSON."""

    @property
    def is_ordinary(self) -> bool:
        """Say whether it has a folder of its own."""
        return self.image is None


@dataclass(frozen=True, slots=True)
class Change:
    """What Update asks for."""

    labels: Labels = field(default_factory=dict)
    paths: Sequence[str] = ()
    """``labels`` or ``labels.NAME``; none: everything that may change, which is labels."""


def checked_key(key: str) -> str:
    """Return *key*, or raise BadRequest."""
    if not key:
        raise BadRequest("a snapshot needs a key")
    if len(key.encode()) > LONGEST_KEY:
        raise BadRequest(f"a key of {len(key.encode())} bytes; {LONGEST_KEY} are the most")
    return key


def checked_labels(labels: Labels) -> dict[str, str]:
    """Return *labels* without the empty ones, which mean none; raises BadRequest."""
    for name, value in labels.items():
        size = len(name.encode()) + len(value.encode())
        if size > LONGEST_LABEL:
            raise BadRequest(f"label {name[:64]!r}: {size} bytes; {LONGEST_LABEL} are the most")
    return {name: value for name, value in labels.items() if value}


def changed(snapshot: Snapshot, change: Change, now: int) -> Snapshot:
    """Return *snapshot* after *change*; raises BadRequest for what may not change."""
    labels = dict(snapshot.labels)
    for path in change.paths or ("labels",):
        word, dot, name = path.partition(".")
        if word != "labels":
            raise BadRequest(f"{path!r} of snapshot {snapshot.key!r} cannot be changed")
        if dot:
            labels[name] = change.labels.get(name, "")
        else:
            labels = dict(change.labels)
    return replace(snapshot, labels=checked_labels(labels), updated=now)


def check_parent(parent: Snapshot) -> None:
    """Raise BadRequest where nothing can stand on *parent*."""
    if parent.kind is not Kind.COMMITTED:
        raise BadRequest(f"parent {parent.key!r} is not committed")


def check_base(parents: Sequence[Snapshot]) -> None:
    """Raise NotInThisState where an ordinary snapshot cannot stand on *parents*, topmost first.

    A data layer's chain id may be that of somebody's ordinary layer, which is not what is here.
    """
    if parents and parents[0].image == DATA:
        raise NotInThisState(
            f"{parents[0].key!r} is a data layer of a lazily loaded image: nothing can be seen of "
            "it but through the image that it belongs to"
        )


def committed(active: Snapshot, name: str, parent: str, labels: Labels, now: int) -> Snapshot:
    """Return *active* as it is after its commit as *name*.

    Its labels are replaced. *parent* may give it one that it had not. Raises NotInThisState,
    BadRequest.
    """
    if active.kind is not Kind.ACTIVE:
        raise NotInThisState(f"snapshot {active.key!r} is not active")
    if parent and active.parent not in ("", parent):
        raise BadRequest(f"snapshot {active.key!r} stands on {active.parent!r}, not on {parent!r}")
    return replace(
        active,
        key=checked_key(name),
        kind=Kind.COMMITTED,
        parent=active.parent or parent,
        labels=checked_labels(labels),
        created=now,
        updated=now,
    )


def fields_of(snapshot: Snapshot) -> Mapping[str, str | Labels]:
    """Return what filters can speak of."""
    return {
        "kind": snapshot.kind.name.lower(),
        "name": snapshot.key,
        "parent": snapshot.parent,
        "labels": snapshot.labels,
    }
