"""Messages of containerd's API: services snapshots, content, images, leases and diff, version 1.

Field names are ours, numbers and order are containerd's. A field nobody here needs is left out.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

Labels = Mapping[str, str]

_NS = 10**9


class Kind(enum.IntEnum):
    """What a snapshot is."""

    UNKNOWN = 0
    VIEW = 1
    """To be read; never committed."""
    ACTIVE = 2
    """To be written."""
    COMMITTED = 3
    """Done; others may stand on it."""


class WriteAction(enum.IntEnum):
    """What a message of a content upload asks for."""

    STAT = 0
    WRITE = 1
    COMMIT = 2


@dataclass(frozen=True, slots=True)
class Empty:
    """google.protobuf.Empty."""


@dataclass(frozen=True, slots=True)
class Timestamp:
    """google.protobuf.Timestamp."""

    seconds: Annotated[int, 1] = 0
    nanos: Annotated[int, 2] = 0

    @classmethod
    def of(cls, nanoseconds: int) -> Timestamp:
        """Return a time since 1970."""
        return cls(*divmod(nanoseconds, _NS))

    @property
    def nanoseconds(self) -> int:
        """Since 1970."""
        return self.seconds * _NS + self.nanos


@dataclass(frozen=True, slots=True)
class FieldMask:
    """google.protobuf.FieldMask."""

    paths: Annotated[tuple[str, ...], 1] = ()


@dataclass(frozen=True, slots=True)
class Mount:
    """What mount(2) is to be told."""

    type: Annotated[str, 1] = ""
    source: Annotated[str, 2] = ""
    target: Annotated[str, 3] = ""
    options: Annotated[tuple[str, ...], 4] = ()


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Content by digest."""

    media_type: Annotated[str, 1] = ""
    digest: Annotated[str, 2] = ""
    size: Annotated[int, 3] = 0
    annotations: Annotated[Labels, 5] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepare:
    """PrepareSnapshotRequest; ViewSnapshotRequest is the same."""

    snapshotter: Annotated[str, 1] = ""
    key: Annotated[str, 2] = ""
    parent: Annotated[str, 3] = ""
    labels: Annotated[Labels, 4] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mounts:
    """What Prepare, View and Mounts answer."""

    mounts: Annotated[tuple[Mount, ...], 1] = ()


@dataclass(frozen=True, slots=True)
class Named:
    """A snapshot; what Mounts, Remove, Stat and Usage ask about, and Cleanup without a key."""

    snapshotter: Annotated[str, 1] = ""
    key: Annotated[str, 2] = ""


@dataclass(frozen=True, slots=True)
class Commit:
    """CommitSnapshotRequest."""

    snapshotter: Annotated[str, 1] = ""
    name: Annotated[str, 2] = ""
    key: Annotated[str, 3] = ""
    labels: Annotated[Labels, 4] = field(default_factory=dict)
    parent: Annotated[str, 5] = ""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """What is told of a snapshot."""

    name: Annotated[str, 1] = ""
    parent: Annotated[str, 2] = ""
    kind: Annotated[Kind, 3] = Kind.UNKNOWN
    created_at: Annotated[Timestamp | None, 4] = None
    updated_at: Annotated[Timestamp | None, 5] = None
    labels: Annotated[Labels, 6] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stat:
    """What Stat and Update answer."""

    info: Annotated[SnapshotInfo | None, 1] = None


@dataclass(frozen=True, slots=True)
class UpdateSnapshot:
    """UpdateSnapshotRequest."""

    snapshotter: Annotated[str, 1] = ""
    info: Annotated[SnapshotInfo | None, 2] = None
    update_mask: Annotated[FieldMask | None, 3] = None


@dataclass(frozen=True, slots=True)
class ListSnapshots:
    """ListSnapshotsRequest."""

    snapshotter: Annotated[str, 1] = ""
    filters: Annotated[tuple[str, ...], 2] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """One of the messages that List answers."""

    info: Annotated[tuple[SnapshotInfo, ...], 1] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a snapshot takes on the disk."""

    size: Annotated[int, 1] = 0
    inodes: Annotated[int, 2] = 0


@dataclass(frozen=True, slots=True)
class WriteContent:
    """WriteContentRequest."""

    action: Annotated[WriteAction, 1] = WriteAction.STAT
    ref: Annotated[str, 2] = ""
    total: Annotated[int, 3] = 0
    expected: Annotated[str, 4] = ""
    offset: Annotated[int, 5] = 0
    data: Annotated[bytes, 6] = b""
    labels: Annotated[Labels, 7] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WrittenContent:
    """WriteContentResponse."""

    action: Annotated[WriteAction, 1] = WriteAction.STAT
    offset: Annotated[int, 4] = 0
    total: Annotated[int, 5] = 0
    digest: Annotated[str, 6] = ""


@dataclass(frozen=True, slots=True)
class ContentInfo:
    """What is told of content."""

    digest: Annotated[str, 1] = ""
    size: Annotated[int, 2] = 0
    labels: Annotated[Labels, 5] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UpdateContent:
    """Content's UpdateRequest."""

    info: Annotated[ContentInfo | None, 1] = None
    update_mask: Annotated[FieldMask | None, 2] = None


@dataclass(frozen=True, slots=True)
class Image:
    """A name and what it stands for."""

    name: Annotated[str, 1] = ""
    labels: Annotated[Labels, 2] = field(default_factory=dict)
    target: Annotated[Descriptor | None, 3] = None


@dataclass(frozen=True, slots=True)
class PutImage:
    """CreateImageRequest, and UpdateImageRequest without a mask."""

    image: Annotated[Image | None, 1] = None


@dataclass(frozen=True, slots=True)
class Lease:
    """CreateRequest of leases."""

    id: Annotated[str, 1] = ""
    labels: Annotated[Labels, 3] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeleteLease:
    """DeleteRequest of leases."""

    id: Annotated[str, 1] = ""
    sync: Annotated[bool, 2] = False


@dataclass(frozen=True, slots=True)
class Apply:
    """ApplyRequest: unpack *diff*, which the content store has, into *mounts*."""

    diff: Annotated[Descriptor | None, 1] = None
    mounts: Annotated[tuple[Mount, ...], 2] = ()


@dataclass(frozen=True, slots=True)
class Applied:
    """ApplyResponse."""

    applied: Annotated[Descriptor | None, 1] = None
