"""Many readers at once, and how often the page cache holds what they read.

    python -m tests.bench.pages [--runs 3] [--gib 1] [--json FILE] [FOLDER]

Needs root, and about 4 times the size in FOLDER.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from .reading import mounted, read_all
from .side_by_side import Table, drop_caches, naiad, seconds
from .trees import large_file

READERS = 16


def together(folder: Path) -> float:
    """Return the GB/s of reading all files in *folder* at once, a process each, caches cold."""
    drop_caches()
    files = sorted(folder.iterdir())

    def work() -> None:
        words = [["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"] for path in files]
        for reader in [subprocess.Popen(each) for each in words]:
            reader.wait()

    return sum(path.stat().st_size for path in files) / seconds(work) / 1e9


def cached(folder: Path, cache: Path) -> float:
    """Return the bytes of page cache that a byte takes when all of *folder* was read."""
    drop_caches()
    files = sorted(folder.iterdir())
    for path in files:
        read_all(path)
    time.sleep(3)
    size = sum(path.stat().st_size for path in files)
    return sum(map(resident, [*files, *cache.rglob("*.data")])) / size


def resident(path: Path) -> int:
    """Return how many bytes of a file the page cache holds."""
    words = ["fincore", "--bytes", "--noheadings", "--output", "RES", str(path)]
    return int(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("/tmp"))
@click.option("--runs", default=3)
@click.option("--gib", default=1.0)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(folder: Path, runs: int, gib: float, out: Path | None) -> None:
    """Print the rows."""
    table = Table(runs, out)
    with tempfile.TemporaryDirectory(prefix="naiad-bench-", dir=folder) as name:
        scratch = Path(name)
        source, image, cache = scratch / "source", scratch / "image", scratch / "cache"
        source.mkdir()
        for number in range(READERS):
            large_file(source / f"{number:02d}", int(gib * (1 << 30)) // READERS, seed=number)
        naiad("build", str(source), str(image))
        kernel, fuse = scratch / "erofs", scratch / "fuse"
        with (
            mounted(str(image), kernel, cache, "--driver", "erofs"),
            mounted(str(image), fuse, cache, "--driver", "fuse"),
        ):
            for path in kernel.iterdir():
                read_all(path)
            roots = {"naiad erofs": kernel, "naiad fuse": fuse, "ext4": source}
            table.row(f"{READERS} readers of a file each, cold", "GB/s", _each(together, roots))
            doubles = _each(lambda root: cached(root, cache), roots)
            table.row("page cache per byte read", "bytes", doubles)
    table.write()


def _each(
    measure: Callable[[Path], float], roots: dict[str, Path]
) -> dict[str, Callable[[], float]]:
    return {name: lambda root=root: measure(root) for name, root in roots.items()}  # type: ignore[misc]


if __name__ == "__main__":
    main()
