"""Texts: the beginnings of an image's files, as much of them as may be looked at."""

from __future__ import annotations

from .listed import ReadFile
from .tree import Node

_ONE = 1 << 20
"""Bytes of a file."""

_ALL = 64 << 20
"""Bytes of all files, which some patterns take ten seconds to go through."""


class Texts:
    """Those of one look; when all that is allowed was read, files are empty."""

    def __init__(self, read: ReadFile) -> None:
        self._read = read
        self._left = _ALL

    def of(self, node: Node) -> bytes:
        """Return how a file begins."""
        text = self._read(node, 0, min(_ONE, self._left))
        self._left -= len(text)
        return text


def as_bytes(text: str) -> bytes:
    """Return a config's words as paths have them."""
    return text.encode(errors="surrogatepass")
