"""The words that name images, before anything is opened. Imports nothing heavy."""

from __future__ import annotations

import re
from pathlib import Path

_CREDENTIALS = re.compile(r"(?<=://)[^/@]*@|[?#].*")


def is_remote(text: str) -> bool:
    """Say whether *text* is a url."""
    return text.startswith(("http://", "https://"))


def split_layout(text: str) -> tuple[Path, str | None]:
    """Return directory and tag of ``oci:DIR[:TAG]``; a directory with a colon in it is one."""
    whole = text.removeprefix("oci:")
    folder, colon, tag = whole.rpartition(":")
    if not colon or "/" in tag or Path(whole).is_dir():
        return Path(whole), None
    return Path(folder), tag


def absolute(text: str) -> str:
    """Return *text* so that it means the same from another working directory."""
    if is_remote(text):
        return text
    if text.startswith("oci:"):
        folder, tag = split_layout(text)
        return f"oci:{folder.absolute()}" + (f":{tag}" if tag else "")
    path = Path(text)
    return str(path.absolute()) if path.exists() else text


def shown(text: str) -> str:
    """Return *text* as everybody on the machine may see it: without credentials."""
    return _CREDENTIALS.sub("", text) if is_remote(text) else absolute(text)
