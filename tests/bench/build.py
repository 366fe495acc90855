"""Building: a tree of small files, and large files, beside mkfs.erofs.

    python -m tests.bench.build [--runs 5] [--files 65000] [--gib 3] [--json FILE] [FOLDER]

Needs mkfs.erofs and about three times the data in FOLDER.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from .side_by_side import Table, drop_caches, seconds
from .trees import MIB, large_file, source_tree


def large_files(root: Path, size: int) -> int:
    """Make *size* bytes in files of up to 1 GiB; return the bytes."""
    root.mkdir()
    for number, start in enumerate(range(0, size, 1 << 30)):
        large_file(root / f"{number}.bin", min(1 << 30, size - start), seed=number)
    return size


def peak_of(command: list[str]) -> float:
    """Run *command* and return the peak RSS of its largest process, in MiB."""
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{command} ended with {status}")
    return usage.ru_maxrss / 1024


def build_command(source: Path, target: Path, *options: str) -> list[str]:
    """Return the command that builds *source*."""
    naiad = str(Path(sys.executable).with_name("naiad"))
    return [naiad, "build", str(source), str(target), "--json", *options]


def rows(table: Table, what: str, source: Path, size: int, scratch: Path) -> None:
    """Measure builds of *source*, which holds *size* bytes."""
    image, erofs = scratch / "image", scratch / "erofs"

    def rate(command: list[str]) -> float:
        shutil.rmtree(image, ignore_errors=True)
        erofs.unlink(missing_ok=True)
        drop_caches()
        quiet = subprocess.DEVNULL
        return size / MIB / seconds(lambda: subprocess.run(command, check=True, stdout=quiet))

    plain = ["mkfs.erofs", str(erofs), str(source)]
    contenders = {
        "naiad lz4": lambda: rate(build_command(source, image)),
        "mkfs.erofs plain": lambda: rate(plain),
        "naiad none": lambda: rate(build_command(source, image, "--codec", "none")),
    }
    table.row(f"build of {what}, source cold", "MiB/s", contenders)
    shutil.rmtree(image, ignore_errors=True)
    peak = peak_of(build_command(source, image))
    print(f"{f'build of {what}, peak memory':58s} naiad {peak:.0f} MiB", flush=True)
    shutil.rmtree(image, ignore_errors=True)
    erofs.unlink(missing_ok=True)


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
        tree, large = scratch / "tree", scratch / "large"
        rows(table, f"{files} small files", tree, source_tree(tree, files), scratch)
        shutil.rmtree(tree)
        rows(table, "large files", large, large_files(large, int(gib * (1 << 30))), scratch)
    table.write()


if __name__ == "__main__":
    main()
