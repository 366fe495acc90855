"""A large image on a web server: how soon it is mounted, what one read costs, and who counted what.

    python -m tests.longer.large_http [--gib 3] [FOLDER]

Needs root, and twice the size in FOLDER.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import click

from fixtures.command import Naiad
from fixtures.rangeserver import RangeServer

_MIB = 1 << 20


def make(path: Path, size: int) -> None:
    """Write *size* bytes, no two MiB alike and none that shrinks."""
    part = bytearray(random.Random(1).randbytes(_MIB))
    with path.open("wb") as file:
        for number in range(size // _MIB):
            part[:8] = number.to_bytes(8, "little")
            file.write(part)


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path), default=Path("/tmp"))
@click.option("--gib", default=3.0)
def main(folder: Path, gib: float) -> None:
    """Mount and read."""
    with tempfile.TemporaryDirectory(prefix="naiad-longer-", dir=folder) as name:
        scratch = Path(name)
        (scratch / "tree").mkdir()
        make(scratch / "tree" / "data", int(gib * (1 << 30)))
        naiad = Naiad(scratch)
        try:
            naiad.run("build", scratch / "tree", scratch / "image", timeout=1000)
            (blob,) = (scratch / "image" / "blobs").iterdir()
            with RangeServer(scratch / "image") as server:
                for driver in ("fuse", "erofs"):
                    _look(naiad, server, driver, scratch / "tree" / "data", f"/blobs/{blob.name}")
        finally:
            naiad.close()


def _look(naiad: Naiad, server: RangeServer, driver: str, source: Path, blob: str) -> None:
    start = time.monotonic()
    place = naiad.mount(server.url, "--driver", driver)
    print(f"{driver}: mounted in {time.monotonic() - start:.2f} s, the cache empty")
    before = sum(stop - first for path, first, stop in server.statistics.ranges if path == blob)
    place_in_file = (source.stat().st_size // 3) & -4096
    fd, copy = os.open(source, os.O_RDONLY), os.open(place / "data", os.O_RDONLY)
    os.posix_fadvise(copy, 0, 0, os.POSIX_FADV_RANDOM)
    start = time.monotonic()
    data = os.pread(copy, 4096, place_in_file)
    took = time.monotonic() - start
    assert data == os.pread(fd, 4096, place_in_file)
    os.close(fd)
    os.close(copy)
    ranges = [(first, stop) for path, first, stop in server.statistics.ranges if path == blob]
    sent = sum(stop - first for first, stop in ranges) - before
    sources = naiad.status(place)["sources"]
    assert isinstance(sources, Mapping)
    print(f"{driver}: 4 KiB in {took * 1000:.1f} ms; the origin sent {sent} bytes of the blob")
    print(f"{driver}: status says {sources['origin']}")
    if sources["origin"]["stored_bytes"] != sent or sources["origin"]["chunks"] != 1:
        raise SystemExit("status and the origin do not agree on one chunk")
    naiad.umount(place)
    naiad.run("cache", "gc")


if __name__ == "__main__":
    main()
