"""The words that name images, before anything is opened. Imports nothing heavy."""

from __future__ import annotations

import re
from pathlib import Path

_CREDENTIALS = re.compile(r"(?<=://)[^/@]*@|[?#].*")


def is_remote(text: str) -> bool:
    """Say whether *text* is a url."""
    return text.startswith(("http://", "https://"))


def absolute(text: str) -> str:
    """Return *text* so that it means the same from another working directory."""
    if is_remote(text) or text.startswith("oci:"):
        return text
    path = Path(text)
    return str(path.absolute()) if path.exists() else text


def shown(text: str) -> str:
    """Return *text* as everybody on the machine may see it: without credentials."""
    return _CREDENTIALS.sub("", text) if is_remote(text) else absolute(text)
