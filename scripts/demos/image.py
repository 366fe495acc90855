"""A program runs from an image over a slow link: lazily, and after downloading all of it.

The image holds the Python interpreter with its library and a table of four million records. The
program looks some of them up. Both ways start with nothing and go over the same 100 Mbit/s.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from rich.console import Console
from rich.table import Table

from fixtures.command import Naiad, naiad
from fixtures.rangeserver import RangeServer

RATE = 100_000_000 / 8
"""Bytes per second of the link."""

RECORDS, RECORD = 4_000_000, struct.Struct("<Q56s")
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"

PROGRAM = """
import bisect, decimal, json, mmap, platform, statistics, struct, sys
record = struct.Struct("<Q56s")
file = open(sys.argv[1], "rb")
table = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
class Keys:
    def __len__(self): return len(table) // record.size
    def __getitem__(self, at): return record.unpack_from(table, at * record.size)[0]
found = []
for key in (1_000_003, 5_999_993, 11_111_110):
    at = bisect.bisect_left(Keys(), key)
    found.append(record.unpack_from(table, at * record.size)[0])
print(json.dumps({"python": platform.python_version(), "records": len(Keys()), "found": found,
                  "mean": str(decimal.Decimal(statistics.mean(found)))}))
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One way to get to the program's output."""

    seconds: float
    fetched: int
    output: str


def main() -> None:
    """Build, serve, mount, run, compare, clean up."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="naiad-demo-") as name:
        folder = Path(name)
        with naiad(folder) as command:
            step(console, "Gathering the interpreter, its library and a table of 4,000,000 records")
            tree = gather(folder / "tree")
            step(console, "naiad build tree image")
            command.run("build", tree, folder / "image", timeout=300)
            size = sum(path.stat().st_size for path in files(folder / "image"))
            step(console, f"Serving the image's {size >> 20} MiB over HTTP at 100 Mbit/s")
            lazy = lazily(console, command, folder)
            whole = downloaded(console, command, folder)
    assert lazy.output == whole.output, "both ways must say the same"
    console.print(f"\nThe program said: {lazy.output}")
    console.print(table(size, lazy, whole))


def step(console: Console, words: str) -> None:
    """Say what is being done."""
    console.print(f"[bold]--[/] {words}")


def gather(tree: Path) -> Path:
    """Copy the interpreter and its library to *tree*, and write a large sorted table."""
    (tree / "bin").mkdir(parents=True)
    shutil.copy2(Path(sys.executable).resolve(), tree / "bin" / VERSION)
    ignored = shutil.ignore_patterns("site-packages", "dist-packages", "__pycache__", "config-*")
    shutil.copytree(Path(os.__file__).parent, tree / "lib" / VERSION, symlinks=True, ignore=ignored)
    variable = sysconfig.get_config_var
    library = Path(str(variable("LIBDIR"))) / str(variable("INSTSONAME"))
    if variable("Py_ENABLE_SHARED") and library.exists():
        shutil.copy2(library, tree / "lib" / library.name)
    with (tree / "records").open("wb") as file:
        for start in range(0, RECORDS, 10_000):
            file.write(b"".join(record(at) for at in range(start, start + 10_000)))
    return tree


def record(at: int) -> bytes:
    """Return the record number *at*: a key, and bytes that do not compress."""
    return RECORD.pack(at * 3, hashlib.blake2b(at.to_bytes(8, "little"), digest_size=56).digest())


def run(root: Path) -> str:
    """Run the program with the interpreter, the library and the table below *root*."""
    environment = {"PYTHONHOME": str(root), "LD_LIBRARY_PATH": str(root / "lib")}
    words: list[str | Path] = [root / "bin" / VERSION, "-B", "-c", PROGRAM, root / "records"]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return str(done.stdout).strip()


def lazily(console: Console, command: Naiad, folder: Path) -> Run:
    """Mount the image and run the program from the mount."""
    step(console, "naiad mount URL mnt, and the program from the mount")
    with RangeServer(folder / "image", rate=RATE) as server:
        start = time.monotonic()
        mount = command.mount(server.url, mountpoint=folder / "mnt")
        output = run(mount)
        seconds = time.monotonic() - start
        command.umount(mount)
        return Run(seconds, server.statistics.sent, output)


def downloaded(console: Console, command: Naiad, folder: Path) -> Run:
    """Download the image, unpack it, and run the program from the copy."""
    step(console, "Downloading all of it over the same link, unpacking, and the program from there")
    copy = folder / "copy"
    with RangeServer(folder / "image", rate=RATE) as server:
        start = time.monotonic()
        for path in files(folder / "image"):
            name = path.relative_to(folder / "image")
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            with urlopen(f"{server.url}/{name}") as answer, (copy / name).open("wb") as file:
                shutil.copyfileobj(answer, file, 1 << 20)
        command.run("unpack", copy, folder / "unpacked", timeout=300)
        output = run(folder / "unpacked")
        return Run(time.monotonic() - start, server.statistics.sent, output)


def files(image: Path) -> list[Path]:
    """Return all files of an image."""
    return sorted(path for path in image.rglob("*") if path.is_file())


def table(size: int, lazy: Run, whole: Run) -> Table:
    """Return the comparison as it is shown."""
    rows = Table(title=f"An image of {size / 1e6:.0f} MB over 100 Mbit/s, nothing cached")
    rows.add_column("")
    for head in ("time to the output", "fetched", "share"):
        rows.add_column(head, justify="right")
    for name, done in (("naiad mount, then run", lazy), ("download, unpack, then run", whole)):
        share = f"{100 * done.fetched / size:.1f} %"
        rows.add_row(name, f"{done.seconds:.2f} s", f"{done.fetched / 1e6:.1f} MB", share)
    return rows


if __name__ == "__main__":
    main()
