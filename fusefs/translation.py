"""Errors of images and chunks as errno: the file system's one boundary.

Expected errors are answered by the table. Anything else is a bug: logged with its traceback the
first time it happens at a place, answered EIO.
"""

from __future__ import annotations

import errno
import logging
import time
import traceback
from types import TracebackType

from pyfuse3 import FUSEError

from chunkstore import ChunkstoreError
from rafs import NoEntry, RafsError, WrongKind

from .errors import FusefsError

logger = logging.getLogger(__name__)

_ERRNO: tuple[tuple[type[Exception], int], ...] = (
    (NoEntry, errno.ENOENT),
    (WrongKind, errno.EINVAL),
    (RafsError, errno.EIO),
    (ChunkstoreError, errno.EIO),
    (FusefsError, errno.EIO),
)
"""The first that fits answers."""

_QUIET = frozenset({errno.ENOENT, errno.EINVAL})
"""What a caller gets for its own mistake, and nobody else needs to know."""

_REPEAT = 5.0
"""Seconds in which the same words are not logged again: a dead origin fails every read."""


class Translation:
    """A context manager around each handler; it remembers the last error for ``status``."""

    def __init__(self) -> None:
        self.last_error = ""
        self.last_error_at = 0.0
        """By the clock of the day."""
        self._logged: dict[str, float] = {}
        self._bugs: set[str] = set()

    def __enter__(self) -> None:
        """Begin a handler."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Raise FUSEError in place of *error*, if there is one."""
        if error is None or isinstance(error, FUSEError) or not isinstance(error, Exception):
            return
        raise FUSEError(self._number(error)) from error

    def _number(self, error: Exception) -> int:
        for kind, number in _ERRNO:
            if isinstance(error, kind):
                if number not in _QUIET:
                    self._remember(error)
                return number
        self._remember_bug(error)
        return errno.EIO

    def _remember(self, error: Exception) -> None:
        self.last_error = f"{type(error).__name__}: {error}"
        self.last_error_at = time.time()
        now = time.monotonic()
        if now - self._logged.get(self.last_error, -_REPEAT) >= _REPEAT:
            if len(self._logged) > 64:
                self._logged.clear()
            self._logged[self.last_error] = now
            logger.error("a request failed: %s", self.last_error)

    def _remember_bug(self, error: Exception) -> None:
        self.last_error = f"{type(error).__name__}: {error} (a bug in naiad)"
        self.last_error_at = time.time()
        place = "".join(traceback.format_tb(error.__traceback__)[-1:])
        if place not in self._bugs and len(self._bugs) < 64:
            self._bugs.add(place)
            logger.error("this is a bug in naiad", exc_info=error)
