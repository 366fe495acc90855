"""Models and memory: many loads beside little of it, and many processes with one model.

    python -m tests.longer.model_memory [--mb 500] [--loads 8] [--shared-mb 2000]
                                       [--only little|shared] [FOLDER]

Little: a daemon in a control group of 512 MiB, from which so many models are loaded at once. None
of its processes may be killed for want of memory, and all loads must end right. Shared: as many
processes map one model and use all of it; it must be fetched once, and the page cache hold it about
once, the mount's file and the cache's together. Needs root, the ``bench`` extra, and in FOLDER
about three times the size.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from chunkstore.direct import cached
from fixtures.command import Naiad, naiad
from fixtures.memorygroup import memory_group
from fixtures.rangeserver import RangeServer
from fixtures.weights import write_safetensors
from tests.bench.side_by_side import drop_caches

GROUP = 512 << 20

_MAP = """
import sys, blake3, numpy
from safetensors import safe_open
digest = blake3.blake3()
with safe_open(sys.argv[1], framework="np") as file:
    for name in file.keys():
        digest.update(file.get_tensor(name).view(numpy.uint8).data)
print(digest.hexdigest())
"""
"""Uses every tensor and keeps none."""


def models(folder: Path, count: int, size: int) -> list[str]:
    """Make an image of *count* models below *folder*; return their digests."""
    local = folder / "local"
    local.mkdir()
    shapes = [(size // 2 // 96 // 1024, 1024)] * 96
    for number in range(count):
        write_safetensors(local / f"{number}.safetensors", shapes, seed=number)
    build = [sys.executable, "-m", "cli", "build", str(local), str(folder / "image")]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    digests = [digest for path in sorted(local.iterdir()) for digest in loaded([path])]
    shutil.rmtree(local)
    if not all(digests):
        sys.exit("local files cannot be loaded")
    return digests


def loaded(paths: list[Path]) -> list[str]:
    """Load *paths* at once, a process each; return the digests, "" where one did not end well."""
    words = [sys.executable, "-c", _MAP]
    running = [
        subprocess.Popen([*words, str(path)], stdout=subprocess.PIPE, text=True) for path in paths
    ]
    said = [process.communicate(timeout=600)[0].strip() for process in running]
    return [
        digest if process.returncode == 0 else ""
        for digest, process in zip(said, running, strict=True)
    ]


def little(command: Naiad, folder: Path, count: int, size: int) -> str:
    """Load *count* models at once from a daemon with little memory; return what went wrong."""
    digests = models(folder, count, size)
    drop_caches()
    with RangeServer(folder / "image") as server, memory_group(GROUP) as group:
        mount = command.mount(server.url, "--prefetch", "none", "--driver", "fuse")
        for record in command.state.glob("*/mount.json"):
            group.add(json.loads(record.read_text())["supervisor"])
        group.add(int(str(command.status(mount)["daemon"])))
        start = time.monotonic()
        found = loaded([mount / f"{number}.safetensors" for number in range(count)])
        spent = time.monotonic() - start
        told, killed, peak = command.status(mount), group.killed, group.peak
        command.umount(mount)
    print(f"{count} models of {size / 1e6:.0f} MB at once, the daemon in 512 MiB: {spent:.1f} s")
    print(f"    killed for want of memory {killed}, daemons replaced {told['restarts']}")
    print(f"    most memory of the group {peak / 2**20:.0f} MiB, pushed {told['pushed_bytes']} B")
    wrong = sum(one != other for one, other in zip(found, digests, strict=True))
    return f"{wrong} wrong, {killed} killed" if wrong or killed or told["restarts"] else ""


def shared(command: Naiad, folder: Path, count: int, size: int) -> str:
    """Have *count* processes map one model; return what went wrong."""
    (digest,) = models(folder, 1, size)
    drop_caches()
    with RangeServer(folder / "image") as server:
        mount = command.mount(server.url, "--prefetch", "none", "--driver", "fuse")
        path = mount / "0.safetensors"
        start = time.monotonic()
        found = loaded([path] * count)
        spent = time.monotonic() - start
        pages = _pages(command, path)
        whole = path.stat().st_size
        settled = _settle(lambda: _pages(command, path), 1.1 * whole)
        left = _pages(command, path)
        sources = command.status(mount)["sources"]
        assert isinstance(sources, dict)
        fetched = sources["origin"]["bytes"]
        command.umount(mount)
    print(f"{count} processes map one model of {whole / 1e6:.0f} MB: {spent:.1f} s")
    print(f"    fetched {fetched / whole:.3f} of its size")
    print(
        f"    page cache {pages / whole:.2f} of its size, {settled:.1f} s later {left / whole:.2f}"
    )
    if any(one != digest for one in found):
        return "wrong bytes"
    return "" if fetched <= 1.01 * whole and left <= 1.1 * whole else "too much"


def _pages(command: Naiad, path: Path) -> int:
    """Return the bytes of a mounted file, and of the cache's files, in the page cache."""
    files = [path, *command.cache.rglob("*.data")]
    total = 0
    for file in files:
        fd = os.open(file, os.O_RDONLY)
        total += cached(fd, 0, os.fstat(fd).st_size) or 0
        os.close(fd)
    return total


def _settle(measure: Callable[[], int], most: float) -> float:
    """Wait until there is no more than *most*, for a minute; return how long that took."""
    start = time.monotonic()
    while measure() > most and time.monotonic() < start + 60:
        time.sleep(0.2)
    return time.monotonic() - start


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("/tmp"))
@click.option("--mb", default=500)
@click.option("--loads", default=8)
@click.option("--shared-mb", default=2000)
@click.option("--only", type=click.Choice(["little", "shared"]))
def main(folder: Path, mb: int, loads: int, shared_mb: int, only: str | None) -> None:
    """Run both, or one."""
    faults = []
    for work, size in ((little, mb), (shared, shared_mb)):
        if only not in (None, work.__name__):
            continue
        with tempfile.TemporaryDirectory(prefix="naiad-memory-", dir=folder) as scratch:
            place = Path(scratch)
            with naiad(place) as command:
                faults.append(work(command, place, loads, size * 1_000_000))
    if any(faults):
        sys.exit("; ".join(filter(None, faults)))


if __name__ == "__main__":
    main()
