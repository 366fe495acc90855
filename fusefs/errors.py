"""What can go wrong with a mount, split by who is at fault.

::

    FusefsError
    ├── MountFailed   the mount could not be made: names the mountpoint and why
    │   └── GivenUp   it was made and its daemons kept dying
    ├── NotMounted    the caller's path: naiad has mounted nothing there
    ├── Busy          programs still use the mount
    └── NoAnswer      the mount's daemon did not answer in time
"""

from __future__ import annotations


class FusefsError(Exception):
    """Something is wrong with a mount."""


class MountFailed(FusefsError):
    """The mount could not be made."""


class GivenUp(MountFailed):
    """The mount was made, and its daemons kept dying."""


class NotMounted(FusefsError):
    """There is no mount of naiad at that path."""


class Busy(FusefsError):
    """Programs still use the mount."""


class NoAnswer(FusefsError):
    """The mount's daemon did not answer in time."""
