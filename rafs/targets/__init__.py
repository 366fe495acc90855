"""Where a built image goes: a directory, an OCI layout, or whatever takes OCI content."""

from __future__ import annotations

from .directory import DirectoryTarget
from .draft import Draft, Piece, Target
from .layout import LayoutShelf, layout_target
from .modelpack import ModelPackTarget
from .oci import OciTarget, Shelf

__all__ = [
    "DirectoryTarget",
    "Draft",
    "LayoutShelf",
    "ModelPackTarget",
    "OciTarget",
    "Piece",
    "Shelf",
    "Target",
    "layout_target",
]
