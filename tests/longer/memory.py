"""What the daemon keeps in memory after ``find`` over 65,000 files and a full read of 2 GiB.

    python -m tests.longer.memory [--files 65000] [--gib 2] [--driver fuse] [FOLDER]

The image lies on a web server. What is told is the daemon's resident memory that is not mapped from
files; it should stay below 120 MiB. Needs root, and four times the size in FOLDER.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import click

from fixtures.command import Naiad
from fixtures.rangeserver import RangeServer
from tests.bench.reading import check_same
from tests.bench.side_by_side import own_memory
from tests.bench.trees import source_tree

from .large_http import make

MOST = 120
"""MiB."""


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path), default=Path("/tmp"))
@click.option("--files", default=65_000)
@click.option("--gib", default=2.0)
@click.option("--driver", "drivers", multiple=True, default=("fuse", "erofs"))
def main(folder: Path, files: int, gib: float, drivers: tuple[str, ...]) -> None:
    """Look."""
    with tempfile.TemporaryDirectory(prefix="naiad-longer-", dir=folder) as name:
        scratch = Path(name)
        tree = scratch / "tree"
        source_tree(tree, files)
        make(tree / "data", int(gib * (1 << 30)))
        naiad = Naiad(scratch)
        try:
            naiad.run("build", tree, scratch / "image", timeout=1000)
            with RangeServer(scratch / "image") as server:
                told = [_look(naiad, server.url, driver, tree / "data") for driver in drivers]
        finally:
            naiad.close()
    if max(told) > MOST:
        raise SystemExit(f"more than {MOST} MiB")


def _look(naiad: Naiad, url: str, driver: str, source: Path) -> float:
    place = naiad.mount(url, "--driver", driver)
    daemon = naiad.status(place)["daemon"]
    assert isinstance(daemon, int)
    began = own_memory(daemon)
    listed = subprocess.run(["find", place], check=True, capture_output=True).stdout.count(b"\n")
    found = own_memory(daemon)
    check_same(place / "data", source)
    read = own_memory(daemon)
    print(
        f"{driver}: {began:.0f} MiB at first, {found:.0f} after `find` of {listed} names, "
        f"{read:.0f} after {source.stat().st_size >> 20} MiB were read",
        flush=True,
    )
    naiad.umount(place)
    naiad.run("cache", "gc")
    return max(found, read)


if __name__ == "__main__":
    main()
