"""Ten kills of a mount's daemon under four threads that fault a mapped file and two that read it.

    python -m tests.longer.outliving [--kills 10] [--mib 512] [--driver fuse] [FOLDER]

The image lies on a web server and the cache is empty at first. Every byte is compared with the
source; what is told at the end is how long the slowest fault and the slowest read took. Needs root,
and four times the size in FOLDER.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click

from fixtures.command import Naiad
from fixtures.mounting import until
from tests.bench.reading import served

from .large_http import make

_PAGE = 4096
_STEP = 1 << 20


class Reader(threading.Thread):
    """Reads for as long as it is let, and keeps the longest wait and what went wrong."""

    def __init__(self, work: Callable[[Reader], None]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.over = threading.Event()
        self.longest = 0.0
        self.count = 0
        self.fault: str | None = None
        self.start()

    def run(self) -> None:
        try:
            self._work(self)
        except OSError as exc:
            self.fault = f"errno {exc.errno}"

    def took(self, since: float, same: bool) -> None:
        """Take note of one access."""
        self.longest = max(self.longest, time.monotonic() - since)
        self.count += 1
        if not same:
            self.fault = "wrong bytes"
            self.over.set()


def fault_in(copy: Path, source: Path, seed: int, reader: Reader) -> None:
    """Touch pages of the mapped copy in no order."""
    order = random.Random(seed)
    with copy.open("rb") as one, source.open("rb") as other:
        view = mmap.mmap(one.fileno(), 0, prot=mmap.PROT_READ)
        view.madvise(mmap.MADV_RANDOM)
        pages = len(view) // _PAGE
        while not reader.over.is_set():
            at = order.randrange(pages) * _PAGE
            since = time.monotonic()
            data = view[at : at + _PAGE]
            reader.took(since, data == os.pread(other.fileno(), _PAGE, at))


def read_through(copy: Path, source: Path, reader: Reader) -> None:
    """Read the copy front to back, again and again, each time from the daemon."""
    with copy.open("rb", buffering=0) as one, source.open("rb", buffering=0) as other:
        while not reader.over.is_set():
            since = time.monotonic()
            data = one.read(_STEP)
            reader.took(since, data == other.read(_STEP))
            if not data:
                os.posix_fadvise(one.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                one.seek(0)
                other.seek(0)


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path), default=Path("/tmp"))
@click.option("--kills", default=10)
@click.option("--mib", default=512)
@click.option("--driver", default="fuse")
def main(folder: Path, kills: int, mib: int, driver: str) -> None:
    """Kill and look."""
    with tempfile.TemporaryDirectory(prefix="naiad-longer-", dir=folder) as name:
        scratch = Path(name)
        (scratch / "tree").mkdir()
        source = scratch / "tree" / "data"
        make(source, mib << 20)
        naiad = Naiad(scratch)
        try:
            naiad.run("build", scratch / "tree", scratch / "image", timeout=1000)
            # Not in this process: who faults holds the interpreter's lock.
            with served(scratch / "image") as url:
                place = naiad.mount(url, "--driver", driver, "--prefetch", "none")
                _kill(naiad, place, source, kills)
        finally:
            naiad.close()


def _kill(naiad: Naiad, place: Path, source: Path, kills: int) -> None:
    copy = place / "data"
    faulting = [
        Reader(lambda reader, seed=seed: fault_in(copy, source, seed, reader))  # type: ignore[misc]
        for seed in range(4)
    ]
    reading = [Reader(lambda reader: read_through(copy, source, reader)) for _ in range(2)]
    for _ in range(kills):
        time.sleep(1.3)
        daemon = naiad.status(place)["daemon"]
        assert isinstance(daemon, int)
        os.kill(daemon, signal.SIGKILL)
        until(lambda gone=daemon: naiad.status(place)["daemon"] != gone)  # type: ignore[misc]
    time.sleep(1)
    for reader in (*faulting, *reading):
        reader.over.set()
        reader.join(30)
    faults = [reader.fault for reader in (*faulting, *reading) if reader.fault]
    print(f"restarts: {naiad.status(place)['restarts']}")
    for what, some in ("faults of 4 KiB", faulting), ("reads of 1 MiB", reading):
        count, longest = sum(r.count for r in some), max(r.longest for r in some)
        print(f"{count} {what}, the longest took {longest:.2f} s")
    if faults or any(reader.is_alive() for reader in (*faulting, *reading)):
        raise SystemExit(f"noticed: {faults or 'some still wait'}")
    print("no error, no wrong byte")


if __name__ == "__main__":
    main()
