"""SOURCE and TARGET: what ``naiad build`` reads and what it writes, as they are typed."""

from __future__ import annotations

from pathlib import Path

import click

from rafs.sources.directory import DirectorySource
from rafs.sources.source import Source
from rafs.targets import DirectoryTarget, Target


def source_of(text: str) -> Source:
    """Return the source that *text* names; raises UsageError."""
    path = Path(text)
    if path.is_dir():
        return DirectorySource(path)
    raise click.UsageError(f"SOURCE {text!r}: no such directory")


def target_of(text: str) -> Target:
    """Return the target that *text* names; raises UsageError."""
    return DirectoryTarget(Path(text))
