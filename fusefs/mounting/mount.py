"""Mounting, unmounting and listing mounts, as commands do it.

::

    run_mount ── fork ── supervisor ── fork ── daemon        (background)
    run_mount = supervisor ── fork ── daemon                 (foreground)

Nothing here imports trio or pyfuse3.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fusefs.control import Command, ask
from fusefs.errors import Declined, FusefsError, MountFailed, NoAnswer, NotMounted

from .early import Early
from .keeper import Keeper, MountSpec
from .kernel import KIND
from .kernel import unmount as unmount_path
from .mountinfo import Mounted, resolved, topmost
from .options import Options
from .state import Folder, Record, StateRoot
from .supervisor import Daemon

logger = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds that a daemon gets to answer ``status`` or ``stop``."""

_WARMING = 30.0
"""Seconds that a daemon gets to find the files of a large image."""

_SETTLING = 0.5
"""Seconds that reads which nobody waits for any more get, as an unmount waits for them."""

_ENDING = 10.0
"""Seconds that an unmounted mount's processes get to be gone."""

_POLL = 0.02
"""Seconds between looks at whether they are: there is no event for another session's processes."""


@dataclass(frozen=True, slots=True)
class MountState:
    """A mount as its state folder shows it."""

    mountpoint: Path
    image: str
    driver: str
    driver_reason: str
    alive: bool
    supervised: bool
    """Whether a daemon that dies would be replaced."""
    failure: str
    """Why a mount that is not alive was given up; empty where nobody was left to say."""
    log: Path


def run_mount(spec: MountSpec, daemon: Daemon, early: Early | None = None) -> None:
    """Mount and return when the mount answers, or, in the foreground, when it has ended.

    *daemon* is called in a process forked from this one, which must have one thread and no event
    loop, and again in another one whenever that has died. Raises MountFailed.

    With *early* this process becomes the supervisor of that daemon, and ends as such.
    """
    options = Options.parse(spec.options)
    mountpoint = _mountpoint(spec.mountpoint)
    root = StateRoot(spec.state)
    with root.locked():
        folder = root.folder(mountpoint)
        _clear(folder, mountpoint)
        folder.path.mkdir(mode=0o700)
        control = folder.listen()
    with control:
        keeper = Keeper(spec, mountpoint, options, folder, control, early)
        if spec.foreground:
            keeper.keep(daemon, lambda: logger.info("mounted at %s", mountpoint))
        else:
            keeper.keep_in_background(daemon)


def _mountpoint(path: Path) -> Path:
    try:
        place = resolved(path)
        if topmost(place) is None and not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as exc:
        raise MountFailed(f"{path}: {exc.strerror}") from exc
    return place


def _clear(folder: Folder, mountpoint: Path) -> None:
    """Remove what a dead mount left; raises MountFailed when it lives."""
    if folder.alive:
        raise MountFailed(f"{mountpoint}: naiad has mounted something there already")
    mounted = topmost(mountpoint)
    if mounted is not None and _is_ours(mounted, folder):
        if mounted.kind == KIND and folder.read() is None and _answers(mountpoint):
            raise MountFailed(f"{mountpoint}: somebody else's naiad has mounted something there")
        logger.info("a dead mount is cleaned mountpoint=%s", mountpoint)
        unmount_path(mountpoint, lazy=True)
    folder.remove()


def _is_ours(mounted: Mounted | None, folder: Folder) -> bool:
    """Say whether naiad has mounted what is *mounted* where *folder* speaks of."""
    if mounted is None:
        return False
    return mounted.kind == KIND or mounted.is_erofs_of(folder.bootstrap)


def _answers(mountpoint: Path) -> bool:
    try:
        mountpoint.stat()
    except OSError:
        return False
    return True


def unmount(mountpoint: Path, *, lazy: bool = False, state: Path | None = None) -> None:
    """Unmount and return when nothing is left of the mount; one that died is cleaned as well.

    Raises NotMounted, and Busy when programs use it, unless *lazy*: then they are cut off.
    """
    try:
        place = resolved(mountpoint)
    except OSError as exc:
        raise NotMounted(f"{mountpoint}: {exc.strerror}") from exc
    folder = StateRoot(state).folder(place)
    mounted = topmost(place)
    ours = _is_ours(mounted, folder)
    if not ours and not folder.path.is_dir():
        raise NotMounted(f"{mountpoint}: naiad has mounted nothing there")
    alive = folder.alive
    if ours:
        with _cut_off(folder, place, mounted):
            _unmount(place, lazy=lazy or not alive)
    if lazy and alive:
        _stop(folder)
    if not _vanishes(folder, alive):
        raise NoAnswer(f"{mountpoint}: unmounted, but its processes go on; see {folder.log}")


def _unmount(place: Path, *, lazy: bool) -> None:
    try:
        unmount_path(place, lazy=lazy)
    except OSError as exc:
        raise FusefsError(f"{place}: cannot unmount: {exc.strerror}") from exc


@contextmanager
def _cut_off(folder: Folder, place: Path, mounted: Mounted | None) -> Iterator[None]:
    """Have the body, which unmounts, not wait for what programs that are gone had asked for.

    What the kernel has taken out of sight nobody uses; all the same it waits for the reads under
    way, each of which may last as long as its deadline when the origin is silent.
    """
    done = threading.Event()

    def watch() -> None:
        if not done.wait(_SETTLING) and topmost(place) != mounted:
            _stop(folder)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _stop(folder: Folder) -> None:
    """Make the mount's processes end: the supervisor by a signal, a daemon alone by asking it."""
    record = folder.read()
    if record is not None and record.is_kept:
        with suppress(ProcessLookupError):
            os.kill(record.supervisor, signal.SIGTERM)
        return
    try:
        ask(folder, Command.STOP, PATIENCE)
    except (NoAnswer, Declined) as exc:
        logger.info("%s", exc)


def _vanishes(folder: Folder, alive: bool) -> bool:
    """Wait for a living mount's processes to remove *folder*, or remove a dead one's."""
    deadline = time.monotonic() + _ENDING
    while alive and folder.alive and time.monotonic() < deadline:
        time.sleep(_POLL)
    if folder.alive:
        return False
    folder.remove()
    return True


def mounts(state: Path | None = None) -> Iterator[MountState]:
    """Yield this user's mounts, the dead ones too; what is left of others is removed."""
    for folder in StateRoot(state).folders():
        record = folder.read()
        if record is None:
            continue
        found = _state(folder, record)
        if found.alive or _is_ours(topmost(found.mountpoint), folder):
            yield found
        else:
            folder.remove()


def _state(folder: Folder, record: Record) -> MountState:
    return MountState(
        Path(record.mountpoint),
        record.image,
        record.driver,
        record.driver_reason,
        folder.alive,
        record.is_kept,
        folder.failure,
        folder.log,
    )


def status(mountpoint: Path, state: Path | None = None) -> Mapping[str, object]:
    """Return what the mount's daemon says of itself; raises NotMounted and NoAnswer.

    Of a mount that died there is only what its state folder says, and ``alive`` is false.
    """
    try:
        place = resolved(mountpoint)
    except OSError as exc:
        raise NotMounted(f"{mountpoint}: {exc.strerror}") from exc
    folder = StateRoot(state).folder(place)
    record = folder.read()
    if record is None:
        raise NotMounted(f"{mountpoint}: naiad has mounted nothing there")
    known = _state(folder, record)
    facts: dict[str, object] = {
        "mountpoint": record.mountpoint,
        "image": record.image,
        "driver": record.driver,
        "driver_reason": record.driver_reason,
        "log": os.fspath(known.log),
        "supervisor": record.supervisor,
        "supervised": known.supervised,
    }
    try:
        return facts | {"alive": True} | dict(ask(folder, Command.STATUS, PATIENCE))
    except NoAnswer:
        if folder.alive:
            raise
    why = folder.failure or "supervisor and daemon were killed"
    return facts | {"alive": False, "last_error": why}


def warm(mountpoint: Path, paths: Sequence[str], state: Path | None = None) -> Mapping[str, object]:
    """Have *paths* of the image fetched and return how far that is; raises as ``status`` does."""
    try:
        place = resolved(mountpoint)
    except OSError as exc:
        raise NotMounted(f"{mountpoint}: {exc.strerror}") from exc
    folder = StateRoot(state).folder(place)
    if folder.read() is None:
        raise NotMounted(f"{mountpoint}: naiad has mounted nothing there")
    argument = msgspec.Raw(msgspec.json.encode({"paths": list(paths)}))
    return ask(folder, Command.WARM, _WARMING, argument)
