"""Two mounts on one cache folder that is far too small for their image, read for a minute.

    python -m tests.longer.eviction [--seconds 60] [FOLDER]

One daemon per driver, four readers of each, direct reads and page cache, and ``cache gc`` beside
them; a third mount, with a cache as small of its own, downloads from both while they evict. Every
byte is compared with the source. Needs root and 400 MiB in FOLDER.
"""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import click

from fixtures.command import Naiad
from fixtures.rangeserver import RangeServer
from fixtures.services import service

SIZE = 96 << 20
_OPTIONS = "--cache-limit", "24MiB", "--prefetch", "none"
READERS = 4
_PAGE = 4096


def read(source: Path, copy: Path, seconds: float, seed: int) -> int:
    """Compare random ranges of two files; return how many bytes. SystemExit at a wrong one."""
    order, seen = random.Random(seed), 0
    direct = os.O_DIRECT if seed % 2 and copy.parent.name == "fuse" else 0  # EROFS has none
    fd, expected = os.open(copy, os.O_RDONLY | direct), source.read_bytes()
    buffer = mmap.mmap(-1, 1 << 20)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        start = order.randrange(SIZE // _PAGE) * _PAGE
        size = _PAGE << order.randrange(9)
        with memoryview(buffer)[:size] as into:
            count = os.preadv(fd, [into], start)
            if into[:count] != expected[start : start + size] or not count:
                raise SystemExit(f"{copy}: wrong bytes in [{start}, {start + size})")
        seen += count
        if not direct:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return seen


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path), default=Path("/tmp"))
@click.option("--seconds", default=60.0)
def main(folder: Path, seconds: float) -> None:
    """Read."""
    with tempfile.TemporaryDirectory(prefix="naiad-longer-", dir=folder) as name:
        scratch = Path(name)
        (scratch / "tree").mkdir()
        source = scratch / "tree" / "data"
        source.write_bytes(random.Random(1).randbytes(SIZE))
        naiad = Naiad(scratch)
        try:
            naiad.run("build", scratch / "tree", scratch / "image", "--chunk-size", "256KiB")
            with (
                RangeServer(scratch / "image") as server,
                service(naiad, "scheduler", "--listen", "127.0.0.1:0") as scheduler,
            ):
                _readers(naiad, server.url, scheduler.address, source, seconds)
                sent = server.statistics.sent
        finally:
            naiad.close()
    print(f"the origin sent {sent >> 20} MiB for an image of {SIZE >> 20} MiB")


def _readers(naiad: Naiad, url: str, scheduler: str, source: Path, seconds: float) -> None:
    options = (*_OPTIONS, "--scheduler", scheduler)
    places = [
        naiad.mount(url, *options, "--driver", driver, mountpoint=naiad.folder / driver)
        for driver in ("fuse", "erofs")
    ]
    own = "--cache", str(naiad.folder / "own"), "--driver", "fuse", "--no-upload"
    child = naiad.mount(url, *options, *own, mountpoint=naiad.folder / "child")
    places.append(child)
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", _READ, source, place / "data", str(seconds), str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for place in places
        for number in range(READERS)
    ]
    while any(reader.poll() is None for reader in readers):
        naiad.run("cache", "gc")
        time.sleep(1)
    said = [reader.communicate()[0] for reader in readers]
    if any(reader.returncode for reader in readers):
        raise SystemExit("wrong bytes, or an error")
    print(f"{sum(map(int, said)) >> 20} MiB were read, all of them right")
    for place in places:
        status = naiad.status(place)
        told = {name: status[name] for name in ("driver", "ready_bytes", "restarts", "last_error")}
        print(told, status["sources"])
    sources = naiad.status(child)["sources"]
    assert isinstance(sources, Mapping)
    if not sources["peer"]["bytes"]:
        raise SystemExit("nothing was uploaded")


_READ = """
import sys
from pathlib import Path
from tests.longer.eviction import read
print(read(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
"""


if __name__ == "__main__":
    main()
