"""Containers start from an image over a slow link: pulled whole first, and loaded lazily.

A registry, containerd and naiad's snapshotter run in folders of their own, which are removed. The
image is the one of `scripts.demos.image` with what a container needs besides: an interpreter, its
library and a table of eight million records, of which the program reads some.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fixtures.containerd import RealContainerd
from fixtures.link import Link
from fixtures.node import Layer, Node, running_node, small_root, tar_of

from .image import PROGRAM, VERSION, gather, step

RATE = 100e6 / 8
"""Bytes per second that the link carries: 100 Mbit/s."""

COMMAND = (f"/bin/{VERSION}", "-B", "-c", PROGRAM, "/records")
ENVIRONMENT = ("--env", "PYTHONHOME=/", "--env", "LD_LIBRARY_PATH=/lib")


@dataclass(frozen=True, slots=True)
class Run:
    """One way to the program's output."""

    pull: float
    """Seconds."""
    total: float
    fetched: int
    output: str


def main() -> None:
    """Build, convert, pull, run, kill, clean up."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="naiad-demo-") as name:
        folder = Path(name)
        step(console, "Gathering the interpreter, its library and a table of 8,000,000 records")
        tree = gather(small_root(folder / "tree"))
        complete(tree)
        step(console, "Starting a registry, naiad snapshotter and containerd")
        with running_node(folder / "node") as (node, containerd):
            step(console, "Pushing the image as everybody does, in one layer")
            node.push([Layer(tar_of(tree))], "app:1")
            step(console, "naiad convert app:1 app:1-lazy")
            host = node.registry.host
            node.naiad.run(
                "convert", "--plain-http", f"{host}/app:1", f"{host}/app:1-lazy", timeout=600
            )
            step(console, "ctr pull app:1 over 100 Mbit/s, and the program in it")
            whole = measured(node, containerd, "app:1", "overlayfs")
            step(console, "naiad pull app:1-lazy over the same link, and the program in it")
            lazy = measured(node, containerd, "app:1-lazy", "naiad")
            step(console, "A container goes on while naiad's daemon is killed three times")
            lines = killed(node, containerd)
    assert lazy.output == whole.output, "both ways must say the same"
    console.print(f"\nThe program said: {lazy.output}")
    console.print(f"The other container checked its files {lines} times and noticed nothing.")
    console.print(table(lazy, whole))


def complete(tree: Path) -> None:
    """Copy the libraries that the interpreter needs from this machine."""
    programs = [tree / "bin" / VERSION, *(tree / "lib" / VERSION).glob("lib-dynload/_decimal*")]
    said = "".join(
        subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        for path in programs
    )
    for found in set(re.findall(r"(?:=> )?(/\S+) \(0x", said)):
        loader = found.startswith(("/lib64/", "/lib/ld-"))
        place = tree / found.lstrip("/") if loader else tree / "lib" / Path(found).name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            shutil.copy2(Path(found).resolve(), place)


@contextmanager
def slow(node: Node) -> Iterator[tuple[str, Link]]:
    """Yield the registry's name at the end of the slow link, and the link."""
    host, _, port = node.registry.host.partition(":")
    with Link(host, int(port), rate=RATE) as link:
        yield link.url.removeprefix("http://"), link


def measured(node: Node, containerd: RealContainerd, name: str, snapshotter: str) -> Run:
    """Pull the image called *name* and run the program from it."""
    with slow(node) as (host, link):
        image = f"{host}/{name}"
        pull: Callable[[], object]
        if snapshotter == "naiad":
            words = ("pull", "--address", node.address, image)
            pull = lambda: node.naiad.run(*words)  # noqa: E731
        else:
            pull = lambda: containerd.ctr(  # noqa: E731
                "images", "pull", "--plain-http", image, timeout=600
            )
        start = time.monotonic()
        pull()
        pulled = time.monotonic()
        output = containerd.ctr(
            *("run", "--rm", "--snapshotter", snapshotter, *ENVIRONMENT, image, "demo", *COMMAND)
        )
        total = time.monotonic() - start
        containerd.ctr("images", "rm", "--sync", image)
        return Run(pulled - start, total, link.passed, output.strip())


def killed(node: Node, containerd: RealContainerd) -> int:
    """Kill the daemon under a container that reads all the time; return how often it has read."""
    image = f"{node.registry.host}/app:1-lazy"
    node.pull("app:1-lazy")
    script = f"while [ ! -e /data/end ]; do md5sum /bin/{VERSION} || exit 1; done"
    process = containerd.start_container(image, "busy", script)
    for _ in range(3):
        time.sleep(1)
        node.kill_daemon()
    time.sleep(1)
    lines = containerd.end_container(process, "busy")
    assert len(set(lines)) == 1, "the bytes stay the same"
    return len(lines)


def table(lazy: Run, whole: Run) -> Table:
    """Return the comparison as it is shown."""
    rows = Table(title="From pull to the program's output over 100 Mbit/s, nothing cached")
    rows.add_column("")
    for head in ("pull", "to the output", "fetched"):
        rows.add_column(head, justify="right")
    for name, run in (("naiad pull, ctr run", lazy), ("ctr pull, ctr run (overlayfs)", whole)):
        fetched = f"{run.fetched / 1e6:.1f} MB"
        rows.add_row(name, f"{run.pull:.2f} s", f"{run.total:.2f} s", fetched)
    rows.caption = f"{whole.total / lazy.total:.0f} times as quick"
    return rows


if __name__ == "__main__":
    main()
