"""``--prefetch-from``: a command tried out on an image that has just been built.

The image is mounted as it will be, by a ``naiad mount`` of its own with a cache that is thrown
away; the command runs over it; what it read first, second and so on is what the mount traced.
"""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click

from fusefs.mounting.mount import unmount
from fusefs.mounting.mountinfo import topmost
from fusefs.sandbox import FAILED, Sandbox
from rafs.targets.draft import Draft

from .boundary import Failed
from .options import DURATION

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What container runtimes look programs up in, where the image does not say."""

_CODE = """\
import ctypes, json, signal, sys
sys.path[:] = json.loads(sys.argv[1])
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
from cli.main import main
sys.argv[:] = ["naiad", *sys.argv[2:]]
main()
"""

_READINESS = 60.0
"""Seconds until the image must be mounted."""

_FAREWELL = 10.0
"""Seconds that what was started gets to end by itself."""

_POLL = 0.02

_MAX_LINKS = 40
"""Symlinks on one path; what Linux follows."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A command that shows what a start needs."""

    words: Sequence[str]
    period: float
    """Seconds after which the command is ended: a service would never end."""
    lenders: tuple[Path, ...] = ()
    """Folders of the blobs that the image has chunks in besides its own."""

    def __call__(self, draft: Draft) -> Sequence[bytes]:
        """Run the command over *draft*'s image and return the paths it read; raises Failed."""
        folder = draft.folder / "tried"
        image = _laid_out(draft, folder, self.lenders)
        trace = folder / "trace"
        trace.touch()
        config = draft.config.get("config") if draft.config else None
        with _mounted(image, folder, trace) as mountpoint:
            self._run(mountpoint, folder, config if isinstance(config, dict) else {})
        listed = trace.read_bytes().splitlines()
        shutil.rmtree(folder, ignore_errors=True)
        return listed

    def _run(self, mountpoint: Path, folder: Path, config: Mapping[str, object]) -> None:
        environment = {"PATH": _PATH, "HOME": "/root"} | dict(_settings(config.get("Env")))
        if _is_inside(mountpoint, self.words[0], environment["PATH"]):
            work = folder / "work"
            work.mkdir()
            where = config.get("WorkingDir")
            start = where if isinstance(where, str) and where.startswith("/") else "/"
            box = Sandbox(str(mountpoint), str(work), self.words, environment, start)
            process = box.start()
        else:
            process = _start_beside(self.words, mountpoint)
        self._say(_ended(process, self.period))

    def _say(self, code: int | None) -> None:
        """Tell how the command ended; raises Failed where it never began."""
        command = shlex.join(self.words)
        if code in (FAILED, 126, 127):
            raise Failed(f"--prefetch-from: {command}: it could not be started")
        if code is None:
            click.echo(f"naiad: {command}: ended after {self.period:g} s", err=True)
        elif code:
            click.echo(f"naiad: {command}: it failed with {code}; what it read counts", err=True)


def trial_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add ``--prefetch-from`` and its period, which *command* gets as one Trial, or None."""

    @click.option(
        "--prefetch-from",
        "command_line",
        metavar="'COMMAND'",
        help="Run this over the image; the files that it reads are listed.",
    )
    @click.option(
        "--prefetch-period",
        type=DURATION,
        default="30s",
        show_default=True,
        help="When to end that command, if it does not end before.",
    )
    @functools.wraps(command)
    def gathered(command_line: str | None, prefetch_period: float, **others: object) -> object:
        trial = None
        if command_line is not None:
            try:
                words = shlex.split(command_line)
            except ValueError as exc:
                raise click.UsageError(f"--prefetch-from {command_line!r}: {exc}") from exc
            if not words:
                raise click.UsageError("--prefetch-from needs a command")
            trial = Trial(words, prefetch_period)
        return command(trace=trial, **others)

    return gathered


def _laid_out(draft: Draft, folder: Path, lenders: Sequence[Path]) -> Path:
    """Return an image directory of *draft*'s pieces, in the new *folder*."""
    image = folder / "image"
    (image / "blobs").mkdir(parents=True)
    (image / "image.boot").hardlink_to(draft.bootstrap.path)
    if draft.blob is not None:
        (image / "blobs" / draft.blob.digest.hex).hardlink_to(draft.blob.path)
    for blob in (path for lender in lenders for path in lender.iterdir()):
        with suppress(FileExistsError):
            (image / "blobs" / blob.name).symlink_to(blob.resolve())
    return image


@contextmanager
def _mounted(image: Path, folder: Path, trace: Path) -> Iterator[Path]:
    """Yield where *image* is mounted, as long as it is wanted."""
    mountpoint, state = folder / "mnt", folder / "state"
    mountpoint.mkdir()
    words = ["mount", "--foreground", "--driver", "fuse", "--prefetch", "none", "--trace", trace]
    words += ["--state", state, "--cache", folder / "cache", image, mountpoint]
    path = json.dumps(sys.path)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _CODE, path, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        if not _waited(lambda: _answers(mountpoint) or process.poll() is not None, _READINESS):
            raise Failed(f"--prefetch-from: the image was not mounted in {_READINESS:g} s")
        if process.poll() is not None:
            said = (folder / "log").read_text(errors="replace").strip()
            raise Failed(f"--prefetch-from: cannot mount the image: {said.splitlines()[-1:]}")
        yield mountpoint
    finally:
        with suppress(Exception):
            unmount(mountpoint, lazy=True, state=state)
        _end(process)


def _answers(mountpoint: Path) -> bool:
    return topmost(mountpoint) is not None and os.access(mountpoint, os.R_OK)


def _settings(words: object) -> Iterator[tuple[str, str]]:
    """Yield the variables that an image's config sets."""
    for word in words if isinstance(words, list) else ():
        name, equals, value = str(word).partition("=")
        if equals:
            yield name, value


def _is_inside(root: Path, program: str, path: str) -> bool:
    """Say whether *program* is the image's own; a relative path never is."""
    if "/" in program and not program.startswith("/"):
        return False
    folders = [""] if program.startswith("/") else path.split(":")
    return any(_exists(root, f"{folder}/{program}") for folder in folders)


def _exists(root: Path, path: str) -> bool:
    """Look a path up as it would be with *root* as the root, symlinks and all."""
    place, left, links = root, path.split("/")[::-1], 0
    while left:
        name = left.pop()
        if name == "..":
            place = place.parent if place != root else root
        elif name not in ("", "."):
            found = place / name
            if found.is_symlink():
                links += 1
                target = str(found.readlink())
                place = root if target.startswith("/") else place
                left += target.split("/")[::-1]
            else:
                place = found
        if links > _MAX_LINKS or not place.exists():
            return False
    return place.is_file()


def _start_beside(words: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start one of this machine's programs in the image's root folder."""
    try:
        return subprocess.Popen(
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            start_new_session=True,
        )
    except OSError as exc:
        raise Failed(f"--prefetch-from: {words[0]}: {exc.strerror}") from exc


def _ended(process: subprocess.Popen[bytes], period: float) -> int | None:
    """Return the exit code, None if it had to be ended after *period* seconds."""
    try:
        return process.wait(period)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End *process*, and what it started in its session, first politely."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(_FAREWELL)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)


def _waited(happened: Callable[[], bool], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True
