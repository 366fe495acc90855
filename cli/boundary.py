"""The command line's one boundary: an error becomes a line on stderr and an exit code.

0 done, 1 failed, 2 misuse (click's own). Expected errors never show a traceback; anything else is a
bug, logged once with its traceback. What errors are called is loaded when there is one: to know
those of all packages takes longer than many a command.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import click

from .groups import plain

logger = logging.getLogger(__name__)


class Failed(click.ClickException):
    """A command that could not do its work, said in one line."""

    exit_code = 1

    def show(self, file: object = None) -> None:
        """Write the line to stderr."""
        click.echo(f"naiad: {self.message}", err=True)


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
        names = importlib.import_module("cli.errors")
        said = names.sentence(exc)
        if said is None:
            logger.exception("this is a bug in naiad")
            bug = plain(exc)
            said = f"internal error: {type(bug).__name__}: {names.one_line(bug)}"
        raise Failed(said) from exc


class Boundary(click.Group):
    """A group whose commands fail in one line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words, translating what is raised: help is printed here."""
        with translated():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the chosen command, translating what it raises."""
        with translated():
            return super().invoke(ctx)
