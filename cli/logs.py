"""Where the log goes: the only place that sets up logging."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

LEVELS = ("debug", "info", "warning", "error")


def to_stderr(level: str) -> None:
    """Send the log to stderr, as a person at a terminal reads it."""
    _only(logging.StreamHandler(sys.stderr), "naiad: %(levelname)s: %(message)s", level)


def to_file(path: Path, level: str) -> None:
    """Append the log to *path*, with times and the module that speaks."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    _only(handler, "%(asctime)s %(levelname)s %(name)s %(message)s", level)


def _only(handler: logging.Handler, layout: str, level: str) -> None:
    handler.setFormatter(logging.Formatter(layout))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
