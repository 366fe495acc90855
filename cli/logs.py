"""Where the log goes: the only place that sets up logging."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

LEVELS = ("debug", "info", "warning", "error")

_OURS = "naiad"
"""Name of the one handler that this module installs; others' are left alone."""


def to_stderr(level: str) -> None:
    """Send the log to stderr, as a person at a terminal reads it."""
    _only(logging.StreamHandler(sys.stderr), "naiad: %(levelname)s: %(message)s", level)


def to_file(path: Path, level: str) -> None:
    """Append the log to *path*, with times and the module that speaks."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    _only(handler, "%(asctime)s %(levelname)s %(name)s %(message)s", level)


def _only(handler: logging.Handler, layout: str, level: str) -> None:
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.name == _OURS]:
        root.removeHandler(old)
        old.close()
    handler.set_name(_OURS)
    handler.setFormatter(logging.Formatter(layout))
    root.addHandler(handler)
    root.setLevel(level.upper())
