"""Setup: what commands that open images are told about how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Setup:
    """Where things are kept, and how origins are spoken to."""

    cache: Path
    plain_http: bool = False
    """Speak HTTP with a registry."""
    patience: float = 30.0
    """Seconds without progress after which an origin is given up."""
