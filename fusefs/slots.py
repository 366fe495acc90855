"""Slots: which part of a session's node numbers an image has.

An image keeps its number for as long as it is shown, over restarts of the daemon too: the kernel
goes on with the nodes it knows. A number that was given once is never given again in the life of
the session: something may still be open there.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from .errors import FusefsError

FIRST = 1
"""Slot 0 is the root directory's."""

LAST = (1 << 24) - 1
"""What is left of 64 bits for a slot."""


class _Given(msgspec.Struct, forbid_unknown_fields=True):
    """What the file says."""

    next: int = FIRST
    numbers: dict[str, int] = {}


class Slots:
    """The numbers given so far, kept in a file of the session's state folder."""

    def __init__(self, path: Path | None = None) -> None:
        """Read *path*, which need not exist; None remembers nothing. Raises FusefsError."""
        self._path = path
        self._given = _read(path) if path is not None else _Given()

    def take(self, name: str) -> int:
        """Return the slot of *name*: the one it has, or a new one, remembered before it is told.

        Raises FusefsError when there is none left or it cannot be remembered.
        """
        given = self._given
        number = given.numbers.get(name)
        if number is None:
            if given.next > LAST:
                raise FusefsError(f"{name}: no slot is left in this session")
            number = given.next
            self._write(_Given(number + 1, given.numbers | {name: number}))
        return number

    def drop(self, name: str) -> None:
        """Forget *name*, but not that its number was given."""
        given = self._given
        if name in given.numbers:
            rest = {key: number for key, number in given.numbers.items() if key != name}
            self._write(_Given(given.next, rest))

    @property
    def names(self) -> frozenset[str]:
        """Those that have a slot, also from a daemon before this one."""
        return frozenset(self._given.numbers)

    def _write(self, given: _Given) -> None:
        if self._path is not None:
            part = self._path.with_name(f"{self._path.name}.part")
            try:
                part.write_bytes(msgspec.json.encode(given))
                part.replace(self._path)
            except OSError as exc:
                raise FusefsError(f"{self._path}: {exc.strerror}") from exc
        self._given = given


def _read(path: Path) -> _Given:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Given)
    except FileNotFoundError:
        return _Given()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        # Numbers that somebody may still use would be given again.
        raise FusefsError(f"{path}: what slots were given cannot be read: {exc}") from exc
