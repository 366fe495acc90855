"""What the command line calls the errors of all packages; loaded when there is one."""

from __future__ import annotations

import click

from chunkstore import (
    CacheUnusable,
    Changed,
    ChunkstoreError,
    Corrupt,
    Malformed,
    Missing,
    Refused,
    Unreachable,
)
from fusefs.errors import Busy, Declined, FusefsError, MountFailed, NoAnswer, NotMounted
from p2p.errors import BadPapers, P2pError, Unsafe, Untrusted
from rafs.errors import BadImage, BadSource, NoEntry, RafsError, Unsupported, WrongKind

from .groups import plain
from .output import printable

_SAID = (
    (Refused, "refused"),
    (Unreachable, "cannot be reached"),
    (Missing, "not found"),
    (Changed, "changed meanwhile"),
    (Corrupt, "damaged"),
    (Malformed, "malformed"),
    (CacheUnusable, "cache cannot be used"),
    (ChunkstoreError, "failed"),
    (Unsupported, "not supported"),
    (BadImage, "bad image"),
    (BadSource, "cannot build from this"),
    (NoEntry, "no such file in the image"),
    (WrongKind, "wrong kind of file"),
    (RafsError, "failed"),
    (NotMounted, "not mounted"),
    (Busy, "in use"),
    (NoAnswer, "no answer"),
    (Declined, ""),
    (MountFailed, "cannot mount"),
    (FusefsError, "failed"),
    (Unsafe, "not safe"),
    (BadPapers, "certificate"),
    (Untrusted, "not trusted"),
    (P2pError, "failed"),
)
"""Expected errors and what each is called; the first that fits speaks.

Empty: it is somebody's answer in words of its own.
"""


def sentence(exc: BaseException) -> str | None:
    """Return the line that an expected error is told in, None for a bug."""
    exc = plain(exc)
    if isinstance(exc, click.ClickException):
        return exc.format_message()
    for kind, said in _SAID:
        if isinstance(exc, kind):
            return f"{said}: {one_line(exc)}" if said else one_line(exc)
    if isinstance(exc, OSError) and exc.strerror:
        where = f"{printable(_text(exc.filename))}: " if exc.filename is not None else ""
        return f"{where}{exc.strerror}"
    return f"failed: {one_line(exc)}" if isinstance(exc, OSError) else None


def one_line(exc: BaseException) -> str:
    """Return what *exc* says, or at least its name."""
    return printable(" ".join(str(exc).split())) or type(exc).__name__


def _text(name: object) -> str:
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)
