"""Where a built image goes: a directory, an OCI layout, or whatever takes OCI content."""

from __future__ import annotations

from .directory import DirectoryTarget
from .draft import Draft, Piece, Target

__all__ = ["DirectoryTarget", "Draft", "Piece", "Target"]
