"""Reading through a mount: cold from HTTP and a registry, local, and in the page cache.

    python -m tests.bench.reading [--runs 5] [--gib 1] [--only WORD] [--json FILE] [FOLDER]

Each with both drivers; on a tmpfs, where no disk counts, ``--driver fuse`` alone. A server has what
it sends in memory: its disk would be ours. What comes from a web server is measured with the cache
in /dev/shm, too, which parts the disk from us. Needs root
(mounting, dropping caches), curl, b3sum, docker-registry, squashfuse and squashfs-tools, and about
8 times the size in FOLDER.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import blake3
import click

from fixtures.registry import running_registry

from .side_by_side import Table, drop_caches, naiad, own_memory, seconds
from .trees import large_file

STEP = 1 << 20
_MEMORY = Path("/dev/shm")

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


def settle(sent: Path) -> None:
    """Have nothing in the page cache but the files of *sent*, what a server sends."""
    drop_caches()
    for path in sent.rglob("*"):
        if path.is_file():
            read_all(path)


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

    def __init__(self, folder: Path, size: int, drivers: Sequence[str]) -> None:
        self.folder = folder
        self.drivers = drivers
        self.plain = folder / "source" / "large.bin"
        self.image = folder / "image"
        self.plain.parent.mkdir()
        large_file(self.plain, size)
        naiad("build", str(self.plain.parent), str(self.image), "--chunk-size", "1MiB")
        (self.blob,) = (self.image / "blobs").iterdir()

    def fresh_cache(self, memory: Path | None = None) -> Path:
        """Return an empty cache folder, below *memory* where that is named."""
        cache = (memory or self.folder) / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        return cache

    @contextmanager
    def mounted(
        self, image: str, driver: str, *options: str, memory: Path | None = None
    ) -> Iterator[Path]:
        """Mount *image* with an empty cache; yields the large file."""
        place, cache = self.folder / driver, self.fresh_cache(memory)
        with mounted(image, place, cache, "--driver", driver, *options) as root:
            yield root / "large.bin"

    def each(self, measure: Callable[[str], float]) -> dict[str, Callable[[], float]]:
        """Return a contender per driver."""
        return {f"naiad {name}": lambda name=name: measure(name) for name in self.drivers}  # type: ignore[misc]

    def cold(
        self, sent: Path, image: str, driver: str, *options: str, memory: Path | None = None
    ) -> float:
        """GB/s of a first read from a server of *sent*: fetched, verified, cached."""
        with self.mounted(image, driver, *options, memory=memory) as path:
            return rate(path, partial(settle, sent))

    def cold_point(self, image: str, driver: str) -> float:
        """Milliseconds of 4 KiB in a chunk that has to be fetched."""
        with self.mounted(image, driver) as path:
            return random_points(path, STEP)

    def download(self, sent: Path, url: str, memory: Path | None = None) -> float:
        """GB/s of downloading the blob from a server of *sent*, then hashing it."""
        settle(sent)
        out = (memory or self.folder) / "download"
        out.unlink(missing_ok=True)

        def work() -> None:
            subprocess.run(["curl", "-s", "-f", "-o", str(out), url], check=True)
            subprocess.run(["b3sum", str(out)], check=True, stdout=subprocess.DEVNULL)

        return self.blob.stat().st_size / seconds(work) / 1e9


def http_rows(table: Table, reading: Reading) -> None:
    """Measure what comes from a web server."""
    if not table.wants("loopback HTTP"):
        return
    with (
        served(reading.image) as url,
        tempfile.TemporaryDirectory(prefix="naiad-bench-", dir=_MEMORY) as name,
    ):
        blob, memory = f"{url}/blobs/{reading.blob.name}", Path(name)
        sent = reading.blob.parent
        table.row(
            "sequential, cold, from loopback HTTP, verified",
            "GB/s",
            reading.each(lambda driver: reading.cold(sent, url, driver))
            | {"curl+b3sum": lambda: reading.download(sent, blob)},
        )
        table.row(
            "the same with the cache in memory",
            "GB/s",
            {
                "naiad fuse": lambda: reading.cold(sent, url, "fuse", memory=memory),
                "curl+b3sum": lambda: reading.download(sent, blob, memory),
            },
        )
        shutil.rmtree(memory / "cache", ignore_errors=True)
        (memory / "download").unlink(missing_ok=True)
        table.row(
            "random 4 KiB of a missing chunk, loopback HTTP, median",
            "ms",
            reading.each(lambda driver: reading.cold_point(url, driver)),
        )


def registry_rows(table: Table, reading: Reading) -> None:
    """Measure what comes from docker-registry."""
    if not table.wants("docker-registry"):
        return
    sent = reading.folder / "registry"
    with running_registry(sent) as registry:
        name, plain = f"{registry.host}/bench:1", "--plain-http"
        source = str(reading.plain.parent)
        naiad("build", source, name, plain, "--chunk-size", "1MiB")
        url = f"{registry.url}/v2/bench/blobs/sha256:{reading.blob.name}"
        table.row(
            "sequential, cold, from docker-registry, verified",
            "GB/s",
            reading.each(lambda driver: reading.cold(sent, name, driver, plain))
            | {"curl+b3sum": lambda: reading.download(sent, url)},
        )


@contextmanager
def squashfused(source: Path, folder: Path) -> Iterator[Path]:
    """Mount *source* through squashfuse, as an image that is not compressed."""
    image, mountpoint = folder / "squash.img", folder / "squash"
    mountpoint.mkdir()
    words = [
        "mksquashfs",
        str(source),
        str(image),
        "-noD",
        "-noF",
        "-noI",
        "-quiet",
        "-no-progress",
    ]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["squashfuse", image, mountpoint], check=True)
    try:
        yield mountpoint
    finally:
        subprocess.run(["fusermount3", "-u", mountpoint], check=True)


def local_rows(table: Table, reading: Reading) -> None:
    """Measure what is already in the cache against the same file on the disk."""
    if not table.wants("local"):
        return
    cache, image = reading.fresh_cache(), str(reading.image)
    with ExitStack() as stack:
        roots = {}
        for driver in reading.drivers:
            place = reading.folder / f"local-{driver}"
            roots[driver] = stack.enter_context(mounted(image, place, cache, "--driver", driver))
        paths = {f"naiad {name}": root / "large.bin" for name, root in roots.items()}
        for path in paths.values():
            check_same(path, reading.plain)
        squash = stack.enter_context(squashfused(reading.plain.parent, reading.folder))
        paths |= {"squashfuse": squash / "large.bin", "plain": reading.plain}
        rows = {name: lambda path=path: rate(path) for name, path in paths.items()}
        disk = {"the disk, directly": lambda: direct_rate(reading.plain)}
        table.row("sequential, local, page cache cold", "GB/s", rows | disk)
        warm = {name: lambda path=path: warm_rate(path) for name, path in paths.items()}
        table.row("sequential, local, page cache warm", "GB/s", warm)
        points = {name: lambda path=path: cold_points(path) for name, path in paths.items()}
        table.row("random 4 KiB, local, page cache cold, median", "ms", points)
        for name, root in roots.items():
            facts = json.loads(naiad("status", "--json", str(root)))[0]
            size = f"  memory of the {name} daemon, not mapped from files"
            print(f"{size:58s} {own_memory(facts['daemon']):.0f} MiB", flush=True)


def direct_rate(path: Path) -> float:
    """Return the GB/s of reading *path* past the page cache."""
    drop_caches()
    words = ["dd", f"if={path}", "of=/dev/null", "bs=4M", "iflag=direct", "status=none"]
    return path.stat().st_size / seconds(lambda: subprocess.run(words, check=True)) / 1e9


def warm_rate(path: Path) -> float:
    """Return the GB/s of reading *path* a second time."""
    read_all(path)
    return rate(path, lambda: None)


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
@click.option("--driver", "drivers", multiple=True, default=("erofs", "fuse"))
@click.option("--only", multiple=True)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(
    folder: Path,
    runs: int,
    gib: float,
    drivers: tuple[str, ...],
    only: tuple[str, ...],
    out: Path | None,
) -> None:
    """Print the rows."""
    table = Table(runs, out, only)
    with tempfile.TemporaryDirectory(prefix="naiad-bench-", dir=folder) as scratch:
        reading = Reading(Path(scratch), int(gib * (1 << 30)), drivers)
        http_rows(table, reading)
        registry_rows(table, reading)
        local_rows(table, reading)
    table.write()


if __name__ == "__main__":
    main()
