"""Metadata through a mount: find, ls -lR, stat, open+read of small files, mount to first ls.

    python -m tests.bench.metadata [--runs 5] [--files 65000] [--only ROW] [--json FILE] [FOLDER]

With ``--keep`` the tree, its image and what is in the cache stay below FOLDER for the next run.
Needs root, squashfuse and mksquashfs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from .reading import mounted, served
from .side_by_side import Table, drop_caches, naiad, own_memory, seconds
from .trees import source_tree

DRIVERS = "erofs", "fuse"

Contenders = dict[str, Path]


def run(*command: str) -> None:
    """Run *command*, its output thrown away."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def stat_all(paths: list[str]) -> float:
    """Return microseconds per ``stat``."""
    return seconds(lambda: [os.lstat(path) for path in paths]) / len(paths) * 1e6


def open_read_all(paths: list[str]) -> float:
    """Return microseconds per file opened, read and closed."""

    def work() -> None:
        for path in paths:
            fd = os.open(path, os.O_RDONLY)
            os.read(fd, 1 << 20)
            os.close(fd)

    return seconds(work) / len(paths) * 1e6


def sample(root: Path, names: list[str], count: int) -> list[str]:
    """Return *count* of *names* under *root*, the same for every root."""
    return [f"{root}/{name}" for name in random.Random(5).sample(names, min(count, len(names)))]


@contextmanager
def squashfused(source: Path, scratch: Path) -> Iterator[Path]:
    """Mount *source* as an uncompressed squashfs through squashfuse."""
    image, mountpoint = scratch / "tree.sqfs", scratch / "squash"
    mountpoint.mkdir(exist_ok=True)
    if not image.exists():
        run("mksquashfs", str(source), str(image), "-comp", "lz4", "-quiet", "-no-progress")
    run("squashfuse", str(image), str(mountpoint))
    try:
        yield mountpoint
    finally:
        run("fusermount3", "-u", str(mountpoint))


def cold_and_warm(table: Table, what: str, unit: str, work: dict[str, Callable[[], float]]) -> None:
    """Add two rows: caches dropped before each run, and once more right after."""
    warm: dict[str, list[float]] = {name: [] for name in work}

    def cold(name: str) -> float:
        drop_caches()
        found = work[name]()
        warm[name].append(work[name]())
        return found

    table.row(f"{what}, cold", unit, {name: lambda name=name: cold(name) for name in work})  # type: ignore[misc]

    def again(name: str) -> float:
        if not warm[name]:  # the cold row is not wanted
            work[name]()
        return warm[name].pop(0) if warm[name] else work[name]()

    table.row(f"{what}, warm", unit, {name: lambda name=name: again(name) for name in work})  # type: ignore[misc]


def rows(table: Table, roots: Contenders, names: list[str]) -> None:
    """Measure every contender's tree."""
    find = {k: lambda r=r: seconds(lambda: run("find", str(r))) for k, r in roots.items()}
    listing = {k: lambda r=r: seconds(lambda: run("ls", "-lR", str(r))) for k, r in roots.items()}
    cold_and_warm(table, "find", "s", find)  # type: ignore[arg-type]
    cold_and_warm(table, "ls -lR", "s", listing)  # type: ignore[arg-type]
    some = {k: sample(r, names, 5000) for k, r in roots.items()}
    cold_and_warm(table, "stat", "us", {k: lambda p=p: stat_all(p) for k, p in some.items()})  # type: ignore[misc]
    few = {k: sample(r, names, 3000) for k, r in roots.items()}
    reading = {k: lambda p=p: open_read_all(p) for k, p in few.items()}
    cold_and_warm(table, "open+read of a small file, local", "us", reading)  # type: ignore[arg-type]
    search = {k: lambda r=r: seconds(lambda: grep(r)) for k, r in roots.items()}
    cold_and_warm(table, "grep -r", "s", search)  # type: ignore[arg-type]


def grep(root: Path) -> None:
    """Look through every file for what is in none."""
    words = ["grep", "-r", "no such words", str(root)]
    subprocess.run(words, stdout=subprocess.DEVNULL, check=False)


def cache_empty(image: str, mountpoint: Path, cache: Path, driver: str, names: list[str]) -> float:
    """Return microseconds per small file that has to be fetched, one after the other."""
    shutil.rmtree(cache, ignore_errors=True)
    with mounted(image, mountpoint, cache, "--driver", driver, "--prefetch", "none"):
        return open_read_all([f"{mountpoint}/{name}" for name in names])


def first_ls(image: Path, mountpoint: Path, cache: Path, driver: str) -> float:
    """Return seconds from the command to the end of the first ``ls``."""
    shutil.rmtree(cache, ignore_errors=True)

    def work() -> None:
        naiad("mount", str(image), str(mountpoint), "--cache", str(cache), "--driver", driver)
        run("ls", str(mountpoint))

    try:
        return seconds(work)
    finally:
        naiad("umount", str(mountpoint))


def imports() -> float:
    """Return seconds of an interpreter that loads all that a mount does, and nothing more."""
    code = "import cli.main, cli.commands.mount, cli.daemon"
    return seconds(lambda: run(sys.executable, "-c", code))


@contextmanager
def scratch_folder(folder: Path, *, keep: bool) -> Iterator[Path]:
    """Yield a folder that goes when it is left, or the one that stays."""
    if keep:
        kept = folder / "naiad-bench-metadata"
        kept.mkdir(exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="naiad-bench-", dir=folder) as name:
        yield Path(name)


def prepared(scratch: Path, files: int) -> tuple[Path, Path, list[str]]:
    """Return a tree, its image and the names of its files, made unless they are there."""
    source, image = scratch / "source", scratch / "image"
    if not image.is_dir():
        shutil.rmtree(source, ignore_errors=True)
        source_tree(source, files)
        naiad("build", str(source), str(image))
    names = [str(p.relative_to(source)) for p in source.rglob("*") if p.is_file()]
    return source, image, sorted(names)


def mount_rows(table: Table, image: Path, scratch: Path, names: list[str]) -> None:
    """Measure what begins with a mount and an empty cache."""
    mountpoint, cache = scratch / "mnt", scratch / "empty"
    mountpoint.mkdir(exist_ok=True)
    ready = {
        f"naiad {driver}": lambda driver=driver: first_ls(image, mountpoint, cache, driver)
        for driver in DRIVERS
    }
    table.row("mount to the end of the first ls", "s", {**ready, "imports alone": imports})
    chosen = random.Random(5).sample(names, min(3000, len(names)))
    orders = {"in no order": chosen, "folder by folder": sorted(chosen)}
    orders["every one of some folders"] = names[: len(chosen)]
    with served(image) as url:
        for where, origin in ("a directory", str(image)), ("loopback HTTP", url):
            for order, few in orders.items():
                empty = {
                    f"naiad {name}": lambda d=name, o=origin, f=few: cache_empty(
                        o, mountpoint, cache, d, f
                    )
                    for name in DRIVERS
                }
                what = f"small file from {where}, {order}"
                table.row(what, "us", empty)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("/tmp"))
@click.option("--runs", default=5)
@click.option("--files", default=65_000)
@click.option("--only", multiple=True)
@click.option("--keep", is_flag=True)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(
    folder: Path, runs: int, files: int, only: tuple[str, ...], keep: bool, out: Path | None
) -> None:
    """Print the rows."""
    table = Table(runs, out, only)
    with scratch_folder(folder, keep=keep) as scratch:
        source, image, names = prepared(scratch, files)
        mount_rows(table, image, scratch, names)
        kernel, fuse, cache = scratch / "erofs", scratch / "fuse", scratch / "cache"
        with (
            mounted(str(image), kernel, cache, "--driver", "erofs"),
            mounted(str(image), fuse, cache, "--driver", "fuse"),
            squashfused(source, scratch) as squash,
        ):
            naiad("warm", "--wait", str(kernel))
            roots = {"naiad erofs": kernel, "naiad fuse": fuse}
            rows(table, {**roots, "squashfuse": squash, "ext4": source}, names)
            for name, root in roots.items():
                facts = json.loads(naiad("status", "--json", str(root)))[0]
                what = f"  memory of the daemon of {name}, not mapped from files"
                print(f"{what:58s} {own_memory(facts['daemon']):.0f} MiB", flush=True)
    table.write()


if __name__ == "__main__":
    main()
