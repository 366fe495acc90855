"""Source: what an image can be built from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rafs.packer import Packer
from rafs.tree import Node

Json = dict[str, object]
"""A JSON object as ``json`` reads it."""


@dataclass(slots=True)
class Harvest:
    """What a source gave, besides the data that went to the packer."""

    root: Node
    warnings: list[str] = field(default_factory=list)
    """What was left out, in words."""
    config: Json | None = None
    """The OCI image config, where the source is a container image."""


class Source(Protocol):
    """What an image is built from."""

    place: Path | None
    """The folder it lives in, where nothing may be written meanwhile; None: nothing can be."""

    def prepare(self) -> int | None:
        """Look, and return about how many bytes of file data there are; None: nobody knows.

        The same source gives the same answer. Raises BadSource.
        """
        ...

    def read(self, packer: Packer) -> Harvest:
        """Hand every file's data to *packer* and return the tree; called once, after ``prepare``.

        The nodes' chunks are complete when the packer is drained. Raises BadSource, naming the
        entry.
        """
        ...
