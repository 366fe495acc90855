"""Building: a tree of small files, large files, and a tar stream, beside mkfs.erofs.

    python -m tests.bench.build [--runs 5] [--files 65000] [--gib 3] [--json FILE] [FOLDER]

Needs mkfs.erofs, root to empty the caches, and about three times the data in FOLDER. The image's
size and the peak memory, of all its processes together, are those of one further build.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from .side_by_side import Table, drop_caches, seconds
from .trees import MIB, large_file, source_tree, text_file


def large_files(root: Path, size: int) -> int:
    """Make *size* bytes in files of up to 1 GiB, a third of them text; return the bytes."""
    root.mkdir()
    for number, start in enumerate(range(0, size, 1 << 30)):
        make = text_file if number % 3 == 2 else large_file
        make(root / f"{number}.bin", min(1 << 30, size - start), number)
    return size


def peak_of(command: list[str]) -> float:
    """Run *command* and return the peak of its processes' proportional set sizes, in MiB."""
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(_set_size, _family(process.pid))))
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return peak / 1024


def _family(pid: int) -> Iterator[int]:
    """Yield *pid* and the processes it has started."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            yield from _family(int(child))


def _set_size(pid: int) -> int:
    """Return a process's proportional set size in KiB; 0 if it has ended."""
    try:
        facts = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(facts.partition("Pss:")[2].split()[0])


def build_command(source: Path, target: Path, *options: str) -> list[str]:
    """Return the command that builds *source*."""
    naiad = str(Path(sys.executable).with_name("naiad"))
    return [naiad, "build", str(source), str(target), "--json", *options]


class Build:
    """Builds of *source*, which holds *size* bytes, in *scratch*."""

    def __init__(self, source: Path, size: int, scratch: Path) -> None:
        self.source = source
        self.size = size
        self.image = scratch / "image"
        self.erofs = scratch / "erofs"

    def clear(self) -> None:
        """Remove what was built."""
        shutil.rmtree(self.image, ignore_errors=True)
        self.erofs.unlink(missing_ok=True)

    def rate(self, command: list[str], *, cold: bool) -> float:
        """Run *command* and return MiB a second; *cold*: nothing of the source is cached."""
        self.clear()
        if cold:
            drop_caches()
        quiet = subprocess.DEVNULL
        return self.size / MIB / seconds(lambda: subprocess.run(command, check=True, stdout=quiet))

    def rows(self, table: Table, what: str, *, beside: bool = True) -> None:
        """Add rows; *beside*: with mkfs.erofs, which reads directories only."""
        ours = {
            f"naiad {codec}": build_command(self.source, self.image, "--codec", codec)
            for codec in ("lz4", "none", "zstd")
        }
        plain = ["mkfs.erofs", str(self.erofs), str(self.source)]
        commands = {"naiad lz4": ours["naiad lz4"]}
        if beside:
            commands["mkfs.erofs plain"] = plain
        commands |= ours
        for cold in (True, False):
            contenders = {
                name: lambda command=command, cold=cold: self.rate(command, cold=cold)
                for name, command in commands.items()
            }
            table.row(f"build of {what}, source {'cold' if cold else 'warm'}", "MiB/s", contenders)
        self.clear()
        peak = peak_of(ours["naiad lz4"])
        stored = sum(path.stat().st_size for path in self.image.rglob("*") if path.is_file())
        print(f"{f'  of {what}, peak memory':58s} naiad lz4 {peak:.0f} MiB", flush=True)
        print(f"{f'  of {what}, stored':58s} naiad lz4 {stored / self.size:.2f} of the source")
        self.clear()


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("/tmp"))
@click.option("--runs", default=5)
@click.option("--files", default=65_000)
@click.option("--gib", default=3.0)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(folder: Path, runs: int, files: int, gib: float, out: Path | None) -> None:
    """Print the rows."""
    table = Table(runs, out)
    with tempfile.TemporaryDirectory(prefix="naiad-bench-", dir=folder) as name:
        scratch = Path(name)
        tree, archive, large = scratch / "tree", scratch / "tree.tar", scratch / "large"
        small = Build(tree, source_tree(tree, files), scratch)
        small.rows(table, f"{files} small files")
        subprocess.run(["tar", "-C", tree, "--format=pax", "-cf", archive, "."], check=True)
        shutil.rmtree(tree)
        Build(archive, small.size, scratch).rows(table, f"{files} files in a tar", beside=False)
        archive.unlink()
        size = large_files(large, int(gib * (1 << 30)))
        Build(large, size, scratch).rows(table, "large files")
    table.write()


if __name__ == "__main__":
    main()
