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
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fixtures.containerd import RealContainerd
from fixtures.node import Layer, Node, running_node, small_root, tar_of
from fixtures.readiness import Program, Readiness, readiness

from .image import PROGRAM, VERSION, gather, step

RATE = 100e6 / 8
"""Bytes per second that the link carries: 100 Mbit/s."""

LOOKUP = Program(
    (f"/bin/{VERSION}", "-B", "-c", PROGRAM, "/records"),
    ("--env", "PYTHONHOME=/", "--env", "LD_LIBRARY_PATH=/lib"),
)


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
            whole = readiness(node, containerd, "app:1", "overlayfs", LOOKUP, RATE)
            step(console, "naiad pull app:1-lazy over the same link, and the program in it")
            lazy = readiness(node, containerd, "app:1-lazy", "naiad", LOOKUP, RATE)
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


def table(lazy: Readiness, whole: Readiness) -> Table:
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
