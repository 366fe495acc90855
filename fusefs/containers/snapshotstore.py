"""SnapshotStore: what is known of snapshots, in SQLite.

One connection, used by one thread at a time. A change is one transaction, on the disk when it
returns; what it makes in the file system is made inside, so that a crash leaves either a record
with its folder or a folder without a record, which the next start removes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from fusefs.containerd.messages import Kind, Labels
from fusefs.errors import BadRequest, NoSnapshot, NotInThisState, SnapshotExists

from .snapshots import Change, Snapshot, Usage, changed, check_parent, checked_key, committed

_VERSION = 1

_SCHEMA = """
CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    kind INTEGER NOT NULL,
    parent INTEGER REFERENCES snapshots (id),
    labels TEXT NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    size INTEGER NOT NULL DEFAULT 0,
    inodes INTEGER NOT NULL DEFAULT 0,
    image TEXT
);
CREATE INDEX children ON snapshots (parent);
"""

_SELECT = """
SELECT s.id, s.key, s.kind, p.key, s.labels, s.created, s.updated, s.size, s.inodes, s.image
FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent
"""

_CHAIN = """
WITH RECURSIVE chain (id, depth) AS (
    SELECT id, 0 FROM snapshots WHERE key = ?
    UNION ALL
    SELECT s.parent, depth + 1 FROM chain c JOIN snapshots s ON s.id = c.id
    WHERE s.parent IS NOT NULL
)
"""

Connect = Callable[[Path], sqlite3.Connection]
Make = Callable[[Snapshot], None]
"""Makes what belongs to a new snapshot."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the database at *path*."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


class SnapshotStore:
    """The snapshots of one snapshotter; every method raises SnapshotError."""

    def __init__(self, path: Path, connect: Connect = connect) -> None:
        """Open the database, made if need be; raises sqlite3.Error."""
        self._database = connect(path)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._database.execute(f"PRAGMA {pragma}")
        with self._transaction():
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise BadRequest(f"{path}: written by a newer naiad (version {version})")
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA user_version = {_VERSION}")

        self._reserve = Reserve(path.with_name(f"{path.name}.reserve"))
        self._reserve.restore()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def get(self, key: str) -> Snapshot:
        """Return the snapshot by that key; raises NoSnapshot."""
        row = self._database.execute(f"{_SELECT} WHERE s.key = ?", (key,)).fetchone()
        if row is None:
            raise NoSnapshot(f"snapshot {key!r} does not exist")
        return _snapshot(row)

    def parents(self, key: str) -> list[Snapshot]:
        """Return what the snapshot *key* stands on, from its parent down; raises NoSnapshot."""
        parent = self.get(key).parent
        return self._chain(parent) if parent else []

    def all(self) -> Iterator[Snapshot]:
        """Return all snapshots."""
        return map(_snapshot, self._database.execute(f"{_SELECT} ORDER BY s.key").fetchall())

    def lent(self, label: str, value: str, parent: str) -> Snapshot | None:
        """Return the lazily loaded layer that *label* marks with *value*, if it stands there."""
        row = self._database.execute(
            f"{_SELECT} WHERE s.image IS NOT NULL AND json_extract(s.labels, ?) = ?"
            " AND coalesce(p.key, '') = ?",
            (f'$."{label}"', value, parent),
        ).fetchone()
        return None if row is None else _snapshot(row)

    def ids(self) -> set[int]:
        """Return the ids that have a record."""
        return {row[0] for row in self._database.execute("SELECT id FROM snapshots")}

    def insert(self, wanted: Snapshot, make: Make) -> Snapshot:
        """Record a new snapshot, with an id of its own, and *make* what belongs to it.

        Raises NoSnapshot for its parent, SnapshotExists, BadRequest, and what *make* does.
        """
        checked_key(wanted.key)
        with self._transaction():
            parent = self._get_parent(wanted.parent) if wanted.parent else None
            values = {
                "key": wanted.key,
                "kind": wanted.kind,
                "parent": parent.id if parent else None,
                "labels": _text(wanted.labels),
                "created": wanted.created,
                "updated": wanted.updated,
                "image": wanted.image,
            }
            names = ", ".join(values)
            marks = ", ".join(f":{name}" for name in values)
            with _unique(wanted.key):
                self._database.execute(
                    f"INSERT INTO snapshots ({names}) VALUES ({marks})",
                    values,
                )
            made = self.get(wanted.key)
            make(made)
        return made

    def commit(
        self, key: str, name: str, parent: str, labels: Labels, usage: Usage, now: int
    ) -> None:
        """Turn the active snapshot *key* into the committed *name*."""
        with self._transaction():
            after = committed(self.get(key), name, parent, labels, now)
            base = self.get(after.parent) if after.parent else None
            if base is not None and base.kind is not Kind.COMMITTED:
                raise NotInThisState(f"parent {base.key!r} is not committed")
            with _unique(name):
                self._database.execute(
                    "UPDATE snapshots SET key = ?, kind = ?, parent = ?, labels = ?, created = ?,"
                    " updated = ?, size = ?, inodes = ? WHERE id = ?",
                    (
                        *(name, after.kind, base.id if base else None, _text(after.labels)),
                        *(now, now, usage.size, usage.inodes, after.id),
                    ),
                )

    def update(self, key: str, change: Change, now: int) -> Snapshot:
        """Change what may be changed, and return the snapshot as it is then."""
        with self._transaction():
            after = changed(self.get(key), change, now)
            self._database.execute(
                "UPDATE snapshots SET labels = ?, updated = ? WHERE id = ?",
                (_text(after.labels), now, after.id),
            )
        return after

    def remove(self, key: str) -> Snapshot:
        """Forget a snapshot that nothing stands on, and return what it was.

        That must be possible on a full disk: nothing else would free it.
        """
        try:
            return self._remove(key)
        except sqlite3.OperationalError as exc:
            if not is_full(exc):
                raise
            self._reserve.release()
            return self._remove(key)

    def replenish(self) -> None:
        """Take back what `remove` may have needed, once there is room again."""
        self._reserve.restore()

    def _remove(self, key: str) -> Snapshot:
        with self._transaction():
            snapshot = self.get(key)
            try:
                self._database.execute("DELETE FROM snapshots WHERE id = ?", (snapshot.id,))
            except sqlite3.IntegrityError as exc:
                raise NotInThisState(f"cannot remove {key!r}: it has children") from exc
        return snapshot

    def _get_parent(self, key: str) -> Snapshot:
        parent = self.get(key)
        check_parent(parent)
        return parent

    def _chain(self, key: str) -> list[Snapshot]:
        rows = self._database.execute(
            f"{_CHAIN} {_SELECT} JOIN chain c ON c.id = s.id ORDER BY c.depth", (key,)
        ).fetchall()
        if not rows:
            raise NoSnapshot(f"parent {key!r} does not exist")
        return list(map(_snapshot, rows))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


class Reserve:
    """Room on the disk for the records of removals, kept by a file that is nothing else."""

    SIZE = 1 << 20
    """Bytes; a removal writes some pages of 4 KiB."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def restore(self) -> None:
        """Take it, if there is room."""
        if not self._path.exists():
            part = self._path.with_name(f"{self._path.name}.part")
            try:
                with part.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, self.SIZE)
                part.rename(self._path)
            except OSError:
                part.unlink(missing_ok=True)

    def release(self) -> None:
        """Give it away."""
        self._path.unlink(missing_ok=True)


def is_full(error: sqlite3.Error) -> bool:
    """Say whether *error* is that of a full disk."""
    code: int = getattr(error, "sqlite_errorcode", 0)  # only what SQLite itself raised has one
    return code & 0xFF == sqlite3.SQLITE_FULL


@contextmanager
def _unique(key: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError as exc:
        raise SnapshotExists(f"snapshot {key!r} exists already") from exc


def _text(labels: Labels) -> str:
    return msgspec.json.encode(labels).decode()


def _snapshot(row: Sequence[Any]) -> Snapshot:
    number, key, kind, parent, labels, created, updated, size, inodes, image = row
    known = msgspec.json.decode(labels, type=dict[str, str])
    usage = Usage(size, inodes)
    return Snapshot(number, key, Kind(kind), parent or "", known, created, updated, usage, image)
