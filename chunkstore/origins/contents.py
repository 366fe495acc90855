"""Contents: a remote image's blobs for code in a worker thread, as ordinary files."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from typing import BinaryIO, TypeVar

import trio

from chunkstore.digest import Buffer, Digest
from chunkstore.errors import Missing

from .download import Download
from .images import Images
from .manifest import Manifest

T = TypeVar("T")

_BUFFER = 1 << 20
"""Bytes per call into the event loop (0.1 ms); together with the socket's buffer all that is held
of a stream."""


class Contents:
    """Opens the configuration and the layers of *manifest*; made in the event loop."""

    def __init__(
        self, images: Images, manifest: Manifest, token: trio.lowlevel.TrioToken | None = None
    ) -> None:
        """Be called from threads that trio started, or from any thread if *token* is given."""
        self._images = images
        self._known = {entry.digest: entry for entry in (manifest.config, *manifest.layers)}
        self._token = token

    def open(self, digest: Digest) -> BinaryIO:
        """Return the blob as a file to be read once; the last read verifies it.

        Reading raises Corrupt, Unreachable or Refused.
        """
        descriptor = self._known.get(digest)
        if descriptor is None:
            raise Missing(f"the manifest names no {digest}")
        stream = _Stream(self._images.download(descriptor), self._token)
        return io.BufferedReader(stream, _BUFFER)


class _Stream(io.RawIOBase):
    def __init__(self, download: Download, token: trio.lowlevel.TrioToken | None) -> None:
        self._download = download
        self._token = token

    def readable(self) -> bool:
        return True

    def readinto(self, into: Buffer) -> int:  # type: ignore[override]  # typeshed: wider
        return self._run(self._download.receive_into, memoryview(into).cast("B"))

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._run(self._download.aclose)

    def _run(self, work: Callable[..., Awaitable[T]], *arguments: object) -> T:
        return trio.from_thread.run(work, *arguments, trio_token=self._token)
