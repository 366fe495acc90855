"""The command line's one translation: an error becomes a line on stderr and an exit code.

0 done, 1 failed, 2 misuse (click's own). Expected errors never show a traceback; anything else is a
bug, logged once with its traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

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

logger = logging.getLogger(__name__)

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


class Failed(click.ClickException):
    """A command that could not do its work, said in one line."""

    exit_code = 1

    def show(self, file: object = None) -> None:
        """Write the line to stderr."""
        click.echo(f"naiad: {self.message}", err=True)


def sentence(exc: BaseException) -> str | None:
    """Return the line that an expected error is told in, None for a bug."""
    exc = _alone(exc)
    if isinstance(exc, click.ClickException):
        return exc.format_message()
    for kind, said in _SAID:
        if isinstance(exc, kind):
            return f"{said}: {_one_line(exc)}" if said else _one_line(exc)
    if isinstance(exc, OSError) and exc.strerror:
        where = f"{_text(exc.filename)}: " if exc.filename is not None else ""
        return f"{where}{exc.strerror}"
    return f"failed: {_one_line(exc)}" if isinstance(exc, OSError) else None


def _alone(exc: BaseException) -> BaseException:
    """Return what a nursery has wrapped, where that is one error."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__


def _text(name: object) -> str:
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)


@contextmanager
def translated() -> Iterator[None]:
    """Turn every error into one that click prints as a line with its exit code."""
    try:
        yield
    except (click.ClickException, click.Abort, click.exceptions.Exit):
        raise
    except BrokenPipeError:
        raise
    except Exception as exc:
        said = sentence(exc)
        if said is None:
            logger.exception("this is a bug in naiad")
            bug = _alone(exc)
            said = f"internal error: {type(bug).__name__}: {_one_line(bug)}"
        raise Failed(said) from exc


class Boundary(click.Group):
    """A group whose commands fail in one line."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the chosen command, translating what it raises."""
        with translated():
            return super().invoke(ctx)
