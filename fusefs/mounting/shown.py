"""Shown: how a daemon wants its session to be seen; it says so when it is ready."""

from __future__ import annotations

import msgspec


class Shown(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The session itself is the file system, or the kernel's EROFS over the files in it."""

    driver: str = "fuse"
    reason: str = ""
    """Why it is this driver; empty: whoever asked for the mount knows."""
    bootstrap: str = ""
    """The checked bootstrap's path, where the driver is EROFS."""
    devices: tuple[str, ...] = ()
    """The blob files that EROFS reads, by their paths in the session."""

    def encode(self) -> bytes:
        """Return it as a word of the channel to the supervisor."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, word: str) -> Shown:
        """Read what a daemon said; nothing said is the session itself."""
        return msgspec.json.decode(word, type=cls) if word else cls()
