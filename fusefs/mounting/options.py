"""Mount options: what ``-o`` may say, and what is asked of the kernel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fusefs.errors import MountFailed

# <linux/mount.h>
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8

_RULES: dict[str, dict[str, bool]] = {
    "suid": {"suid": True},
    "nosuid": {"suid": False},
    "dev": {"dev": True},
    "nodev": {"dev": False},
    "exec": {"exec_": True},
    "noexec": {"exec_": False},
    "allow_other": {"allow_other": True},
    "noallow_other": {"allow_other": False},
    "ro": {},
    "defaults": {},
    "noatime": {},
    "relatime": {},
    "default_permissions": {},
}
"""Option to the fields it sets; those that set none say what holds anyway."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a mount permits; always read-only, and the kernel checks permissions."""

    suid: bool = False
    dev: bool = False
    exec_: bool = True
    allow_other: bool | None = None
    """None: where it is permitted."""

    @classmethod
    def parse(cls, words: Iterable[str]) -> Options:
        """Read the words of ``-o``, each maybe a comma-separated list; raises MountFailed."""
        options = cls()
        for word in (part for group in words for part in group.split(",") if part):
            if word not in _RULES:
                known = " ".join(sorted(_RULES))
                raise MountFailed(f"mount option {word!r} is not one of: {known}")
            options = replace(options, **_RULES[word])
        return options

    @property
    def flags(self) -> int:
        """The flags of mount(2)."""
        flags = MS_RDONLY
        flags |= 0 if self.suid else MS_NOSUID
        flags |= 0 if self.dev else MS_NODEV
        return flags | (0 if self.exec_ else MS_NOEXEC)

    @property
    def words(self) -> list[str]:
        """The same flags as words for fusermount3."""
        return [
            "ro",
            "suid" if self.suid else "nosuid",
            "dev" if self.dev else "nodev",
            "exec" if self.exec_ else "noexec",
        ]
