"""Reading through a mount: cold from an HTTP origin, local, and in the page cache.

    python -m tests.bench.reading [--runs 5] [--gib 1] [--json FILE] [FOLDER]

Needs root (mounting, dropping caches), curl, and about 5 times the size in FOLDER.
"""

from __future__ import annotations

import mmap
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import blake3
import click

from .side_by_side import Table, drop_caches, naiad, seconds
from .trees import large_file

STEP = 1 << 20
POINTS = 200
"""Random reads per run; the figure is their median or their mean, as the row says."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve *folder* over loopback HTTP; yields the URL."""
    command = [sys.executable, "-m", "fixtures.rangeserver", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


@contextmanager
def mounted(image: str, mountpoint: Path, cache: Path, *options: str) -> Iterator[Path]:
    """Mount *image* and unmount it again."""
    mountpoint.mkdir(exist_ok=True)
    naiad("mount", image, str(mountpoint), "--cache", str(cache), *options)
    try:
        yield mountpoint
    finally:
        naiad("umount", str(mountpoint))


def read_all(path: Path) -> None:
    """Read *path* front to back into one buffer."""
    buffer = bytearray(STEP)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def rate(path: Path, before: Callable[[], object] = drop_caches) -> float:
    """Return the GB/s of reading *path* after *before*."""
    before()
    return path.stat().st_size / seconds(lambda: read_all(path)) / 1e9


def random_points(path: Path, step: int) -> float:
    """Return the median milliseconds of 4 KiB reads in chunks that nobody touched."""
    places = random.Random(7).sample(range(0, path.stat().st_size - 4096, step), POINTS)
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        times = sorted(seconds(lambda at=at: os.pread(fd, 4096, at)) for at in places)  # type: ignore[misc]
    finally:
        os.close(fd)
    return times[len(times) // 2] * 1e3


class Reading:
    """The folder a run works in, and the contenders."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.plain = folder / "source" / "large.bin"
        self.image = folder / "image"
        self.mountpoint = folder / "mnt"
        self.plain.parent.mkdir()
        large_file(self.plain, size)
        naiad("build", str(self.plain.parent), str(self.image))
        (self.blob,) = (self.image / "blobs").iterdir()

    def fresh_cache(self) -> Path:
        """Return an empty cache folder."""
        cache = self.folder / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        return cache

    def cold(self, url: str) -> float:
        """GB/s of a first read: fetched, verified, cached."""
        with mounted(url, self.mountpoint, self.fresh_cache()) as root:
            return rate(root / "large.bin")

    def cold_point(self, url: str) -> float:
        """Milliseconds of 4 KiB in a chunk that has to be fetched."""
        with mounted(url, self.mountpoint, self.fresh_cache()) as root:
            return random_points(root / "large.bin", STEP)

    def download(self, url: str) -> float:
        """GB/s of downloading the blob, then hashing it."""
        drop_caches()
        out = self.folder / "download"
        out.unlink(missing_ok=True)

        def work() -> None:
            source = f"{url}/blobs/{self.blob.name}"
            subprocess.run(["curl", "-s", "-o", str(out), source], check=True)
            subprocess.run(["b3sum", str(out)], check=True, stdout=subprocess.DEVNULL)

        return self.blob.stat().st_size / seconds(work) / 1e9


def local_rows(table: Table, reading: Reading, cache: Path) -> None:
    """Measure what is already in the cache against the same file on the disk."""
    with mounted(str(reading.image), reading.mountpoint, cache) as root:
        path = root / "large.bin"
        read_all(path)
        check_same(path, reading.plain)
        table.row(
            "sequential, local, page cache cold",
            "GB/s",
            {"naiad": lambda: rate(path), "ext4": lambda: rate(reading.plain)},
        )
        read_all(path)
        read_all(reading.plain)
        table.row(
            "sequential, page cache warm",
            "GB/s",
            {
                "naiad": lambda: rate(path, lambda: None),
                "ext4": lambda: rate(reading.plain, lambda: None),
            },
        )
        table.row(
            "random 4 KiB, local, page cache cold, median",
            "ms",
            {"naiad": lambda: cold_points(path), "ext4": lambda: cold_points(reading.plain)},
        )


def cold_points(path: Path) -> float:
    """Return the median milliseconds of random 4 KiB reads after dropping the page cache."""
    drop_caches()
    return random_points(path, STEP)


def check_same(one: Path, other: Path) -> None:
    """Raise unless both files hash to the same; figures of wrong bytes are worth nothing."""
    if file_digest(one) != file_digest(other):
        raise SystemExit(f"{one} does not hold the bytes of {other}")


def file_digest(path: Path) -> bytes:
    """Return the BLAKE3 of *path*."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        return blake3.blake3(view).digest()


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("/tmp"))
@click.option("--runs", default=5)
@click.option("--gib", default=1.0)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(folder: Path, runs: int, gib: float, out: Path | None) -> None:
    """Print the rows."""
    table = Table(runs, out)
    with tempfile.TemporaryDirectory(prefix="naiad-bench-", dir=folder) as scratch:
        reading = Reading(Path(scratch), int(gib * (1 << 30)))
        with served(reading.image) as url:
            table.row(
                "sequential, cold, from loopback HTTP, verified",
                "GB/s",
                {
                    "naiad": lambda: reading.cold(url),
                    "curl+b3sum": lambda: reading.download(url),
                },
            )
            table.row(
                "random 4 KiB of a missing chunk, loopback HTTP, median",
                "ms",
                {"naiad": lambda: reading.cold_point(url)},
            )
        local_rows(table, reading, reading.fresh_cache())
    table.write()


if __name__ == "__main__":
    main()
