"""A model is loaded over a slow link: mounted, after a download, again, and on a second node.

The loader is safetensors' own, unmodified; the link carries 1 Gbit/s and is 10 ms away. Both nodes
begin with an empty cache; the second has the first as its peer, next door.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.request import urlopen

from rich.console import Console
from rich.table import Table

from fixtures.command import Naiad, naiad
from fixtures.link import parse_rate
from fixtures.services import service
from fixtures.weights import write_safetensors

from .image import sent, step

RATE, DELAY = "1gbit", "10ms"

LAYERS, WIDTH = 24, 2048
SHAPES = (
    (WIDTH, WIDTH),
    (WIDTH, WIDTH // 4),
    (WIDTH, WIDTH // 4),
    (WIDTH, WIDTH),
    (WIDTH, WIDTH),
    (WIDTH, WIDTH),
    (WIDTH,),
    (WIDTH,),
)
"""Of a layer: attention, a small network behind it, two norms."""

VOCABULARY = 32_000


@dataclass(frozen=True, slots=True)
class Load:
    """One load of the whole model."""

    what: str
    first: float
    """Seconds to the first tensor."""
    total: float
    digest: str
    fetched: int
    """Bytes that came over the link."""


def main() -> None:
    """Make, serve, mount, load, compare, clean up."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="naiad-demo-") as name:
        folder = Path(name)
        for part in ("model", "one", "two"):
            (folder / part).mkdir()
        path = folder / "model/model.safetensors"
        step(console, "Making a model of fp16 tensors")
        write_safetensors(path, [*SHAPES * LAYERS, (VOCABULARY, WIDTH)])
        size = path.stat().st_size
        with naiad(folder / "one") as one, naiad(folder / "two") as two:
            step(console, f"naiad build model image, of {size / 1e6:.0f} MB")
            one.run("build", folder / "model", folder / "image", timeout=300)
            with serving(folder) as (server, link):
                step(console, "Downloading the file over the link, and loading it")
                before = sent(server)
                whole = replace(downloaded(folder, link), fetched=sent(server) - before)
                loads = [whole, *all_loads(console, one, two, server, link)]
    assert len({load.digest for load in loads}) == 1, "all ways must load the same"
    console.print(table(size, loads))


def all_loads(console: Console, one: Naiad, two: Naiad, server: str, link: str) -> Iterator[Load]:
    """Load in all ways but the first download; yields what each took."""

    def counted(words: str, what: str, root: Callable[[], Path]) -> Load:
        step(console, words)
        before = sent(server)
        found = load(what, root())
        return replace(found, fetched=sent(server) - before)

    with service(one, "scheduler", "--listen", "127.0.0.1:0") as scheduler:
        swarm, image = ("--scheduler", scheduler.address), f"{link}/image"
        mounts: list[Path] = []

        def mounted(node: Naiad) -> Path:
            mounts.append(node.mount(image, *swarm))
            return mounts[-1]

        yield counted("naiad mount URL mnt, load", "mount, empty cache", lambda: mounted(one))
        yield counted("The same once more", "the same node, again", lambda: mounts[0])
        words = "A second node, with the first as its peer: naiad mount URL mnt, load"
        yield counted(words, "second node, from the first", lambda: mounted(two))
        for node, mount in zip((one, two), mounts, strict=True):
            node.umount(mount)


def load(what: str, root: Path) -> Load:
    """Load the model below *root*, in a process of its own."""
    path = str(root / "model.safetensors")
    words = [sys.executable, "-m", "tests.bench.loaders", "in order", path]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    return Load(what, found["first"], found["total"], found["digest"], 0)


def downloaded(folder: Path, link: str) -> Load:
    """Download the file, then load it; the first tensor comes after the last byte."""
    start = time.monotonic()
    (folder / "copy").mkdir()
    copy = folder / "copy/model.safetensors"
    with copy.open("wb") as out, urlopen(f"{link}/model/{copy.name}") as answer:
        shutil.copyfileobj(answer, out, 1 << 20)
    spent = time.monotonic() - start
    found = load("download, then load", folder / "copy")
    return replace(found, first=spent + found.first, total=spent + found.total)


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, str]]:
    """Serve *folder*, and put the link before it; yields the urls of both ends."""
    words = [sys.executable, "-m", "fixtures.rangeserver", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            url = server.stdout.readline().strip()
            with linked(url) as link:
                yield url, link
        finally:
            server.terminate()


@contextmanager
def linked(url: str) -> Iterator[str]:
    """Put the link before the server at *url*."""
    server = url.removeprefix("http://")
    words = [sys.executable, "-m", "fixtures.link", server, "--rate", RATE, "--delay", DELAY]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as link:
        assert link.stdout
        try:
            yield link.stdout.readline().strip()
        finally:
            link.terminate()


def table(size: int, loads: Sequence[Load]) -> Table:
    """Return the comparison as it is shown."""
    rows = Table(title=f"A model of {size / 1e6:.0f} MB over {RATE}, {DELAY}")
    rows.add_column("")
    for head in ("first tensor", "all tensors", "over the link"):
        rows.add_column(head, justify="right")
    for done in loads:
        seconds = (f"{done.first:.2f} s", f"{done.total:.2f} s")
        rows.add_row(done.what, *seconds, f"{done.fetched / 1e6:.0f} MB")
    rows.caption = f"The link alone takes {size / parse_rate(RATE):.2f} s"
    return rows


if __name__ == "__main__":
    main()
