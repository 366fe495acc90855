"""What can go wrong with a mount or a snapshot, split by who is at fault.

::

    FusefsError
    ├── MountFailed   the mount could not be made: names the mountpoint and why
    │   ├── GivenUp   it was made and its daemons kept dying
    │   └── KernelRefuses   the kernel's EROFS does not take it
    ├── NotMounted    the caller's path: naiad has mounted nothing there
    ├── Busy          programs still use the mount, or another snapshotter what this one is to
    ├── NoAnswer      the mount's daemon did not answer in time
    ├── Declined      it answered that it cannot, and why
    └── SnapshotError
        ├── NoSnapshot      there is none by that key
        ├── SnapshotExists  there is one already
        ├── NotInThisState  the snapshot is not such that this could be done with it
        └── BadRequest      what is asked cannot be
"""

from __future__ import annotations


class FusefsError(Exception):
    """Something is wrong with a mount."""


class MountFailed(FusefsError):
    """The mount could not be made."""


class GivenUp(MountFailed):
    """The mount was made, and its daemons kept dying."""


class KernelRefuses(MountFailed):
    """The kernel's EROFS does not take the image, or there is none."""


class NotMounted(FusefsError):
    """There is no mount of naiad at that path."""


class Busy(FusefsError):
    """Programs still use the mount, or another snapshotter what this one is to."""


class NoAnswer(FusefsError):
    """The mount's daemon did not answer in time."""


class Declined(FusefsError):
    """What was asked answered that it cannot, and why."""


class SnapshotError(FusefsError):
    """Something is wrong with a snapshot, or with what is asked of it."""


class NoSnapshot(SnapshotError):
    """There is no snapshot by that key."""


class SnapshotExists(SnapshotError):
    """There is a snapshot by that key already."""


class NotInThisState(SnapshotError):
    """The snapshot is not in the state that this needs."""


class BadRequest(SnapshotError):
    """What is asked for cannot be."""
