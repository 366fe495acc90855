"""A program runs from an image over a slow link: lazily, and after downloading a tar.gz of it.

The image holds the Python interpreter with its library and a table of eight million records. The
program looks some of them up. Both ways start with nothing and go over the same 100 Mbit/s.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from rich.console import Console
from rich.table import Table

from fixtures.command import Naiad, naiad

RATE = "100mbit"
"""What the link carries in a second."""

RECORDS, RECORD = 8_000_000, struct.Struct("<Q56s")
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"

PROGRAM = """
import bisect, decimal, json, os, platform, struct, sys
record = struct.Struct("<Q56s")
table = os.open(sys.argv[1], os.O_RDONLY)
class Keys:
    def __len__(self): return os.fstat(table).st_size // record.size
    def __getitem__(self, at):
        return record.unpack(os.pread(table, record.size, at * record.size))[0]
at = bisect.bisect_left(Keys(), 16_000_007)
share = decimal.Decimal(at) / len(Keys())
print(json.dumps({"python": platform.python_version(), "record": at, "place": f"{share:.3f}"}))
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
            step(console, "Gathering the interpreter, its library and a table of 8,000,000 records")
            tree = gather(folder / "tree")
            step(console, "naiad build tree image")
            command.run("build", tree, folder / "image", timeout=300)
            size = sum(path.stat().st_size for path in files(folder / "image"))
            step(console, "tar -cz tree, for comparison")
            (folder / "archive").mkdir()
            words = ["tar", "-C", str(tree), "-I", "gzip -1", "-cf"]
            subprocess.run([*words, str(folder / "archive/tree.tar.gz"), "."], check=True)
            step(console, f"Serving the image's {size >> 20} MiB over HTTP at 100 Mbit/s")
            lazy = lazily(console, command, folder)
            whole = downloaded(console, folder)
    assert lazy.output == whole.output, "both ways must say the same"
    console.print(f"\nThe program said: {lazy.output}")
    console.print(table(size, lazy, whole))


def step(console: Console, words: str) -> None:
    """Say what is being done."""
    console.print(f"[bold]--[/] {words}")


def gather(tree: Path) -> Path:
    """Copy the interpreter and its library to *tree*, and write a large sorted table."""
    (tree / "bin").mkdir(parents=True, exist_ok=True)
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


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve *folder* over the slow link and yield its url.

    From a process of its own: one that starts a program stands still until the program is read.
    """
    words = [sys.executable, "-m", "fixtures.rangeserver", str(folder), "--rate", RATE]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def sent(url: str) -> int:
    """Return how many bytes the server at *url* has sent so far."""
    with urlopen(f"{url}/.statistics") as answer:
        return int(json.load(answer)["sent"])


def lazily(console: Console, command: Naiad, folder: Path) -> Run:
    """Mount the image and run the program from the mount."""
    step(console, "naiad mount URL mnt, and the program from the mount")
    with serving(folder / "image") as url:
        start = time.monotonic()
        mount = command.mount(url, mountpoint=folder / "mnt")
        output = run(mount)
        seconds = time.monotonic() - start
        command.umount(mount)
        return Run(seconds, sent(url), output)


def downloaded(console: Console, folder: Path) -> Run:
    """Download the same tree as a tar.gz, unpacking it as it comes, and run the program from it."""
    step(console, "Downloading a tar.gz of the same files over the same link, and the program")
    with serving(folder / "archive") as url:
        start = time.monotonic()
        (folder / "copy").mkdir()
        words = ["tar", "-xzf", "-", "-C", str(folder / "copy")]
        with subprocess.Popen(words, stdin=subprocess.PIPE) as tar:
            assert tar.stdin
            with urlopen(f"{url}/tree.tar.gz") as answer, tar.stdin as pipe:
                shutil.copyfileobj(answer, pipe, 1 << 20)
        output = run(folder / "copy")
        return Run(time.monotonic() - start, sent(url), output)


def files(image: Path) -> list[Path]:
    """Return all files of an image."""
    return sorted(path for path in image.rglob("*") if path.is_file())


def table(size: int, lazy: Run, whole: Run) -> Table:
    """Return the comparison as it is shown."""
    rows = Table(title=f"An image of {size / 1e6:.0f} MB over 100 Mbit/s, nothing cached")
    rows.add_column("")
    for head in ("time to the output", "fetched", "share"):
        rows.add_column(head, justify="right")
    for name, done in (("naiad mount, then run", lazy), ("download a tar.gz, then run", whole)):
        share = f"{100 * done.fetched / size:.1f} %"
        rows.add_row(name, f"{done.seconds:.2f} s", f"{done.fetched / 1e6:.1f} MB", share)
    rows.caption = f"{whole.seconds / lazy.seconds:.0f} times as quick"
    return rows


if __name__ == "__main__":
    main()
