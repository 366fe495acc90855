"""A program started lazily from the mounts of ten hosts at once, against one alone (root only).

::

    python -m tests.bench.starting                       ten hosts, 100 Mbit/s, with a seed
    python -m tests.bench.starting --no-seed --rate 10mbit
    python -m tests.bench.starting --apart               no swarm, an origin with room for all

The program is Debian's Python with its library; it is ready when it has loaded what a small service
loads. All hosts run on this machine, so ten starts also need ten times the CPU: what the machine
was busy with is printed beside what it had, and who used it. On two cores it is links of 10 Mbit/s
that show what the swarm itself costs; ``--apart`` tells what ten starts at once take here when
nobody gives anybody anything.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fixtures.site import Plan, Site, machine_cpu, place_for

_PYTHON, _LIBRARY = Path("/usr/bin/python3.11"), Path("/usr/lib/python3.11")

_PROGRAM = """
import asyncio, decimal, email.message, http.client, json, logging.config, sqlite3, ssl
import urllib.request, xml.etree.ElementTree, time
print(time.monotonic())
"""


@dataclass(frozen=True, slots=True)
class Start:
    """How the program started on some hosts at once."""

    seconds: list[float]
    """Until each was ready."""
    origin: int
    """Bytes that the origin sent meanwhile."""
    busy: float
    """CPU seconds of the machine."""
    spent: dict[str, float]
    """Those of services, mounts and programs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--chunk", type=str, default="256KiB")
    parser.add_argument("--rate", default="100mbit")
    parser.add_argument("--no-seed", action="store_true")
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder or place_for(0)) as folder:
        run(asked, Path(folder))


def run(asked: argparse.Namespace, folder: Path) -> None:
    tree, image = folder / "tree", folder / "image"
    (tree / "usr/bin").mkdir(parents=True)
    shutil.copy2(_PYTHON, tree / "usr/bin")
    shutil.copytree(_LIBRARY, tree / "usr/lib/python3.11", symlinks=True)
    words = ["build", str(tree), str(image), "--chunk-size", asked.chunk]
    subprocess.run([sys.executable, "-m", "cli", *words], check=True, stdout=subprocess.DEVNULL)
    ratios, shares = [], []
    for number in range(asked.runs):
        alone = start(asked, image, folder / f"alone{number}", 1)
        together = start(asked, image, folder / f"together{number}", asked.hosts)
        last, first = max(together.seconds), alone.seconds[0]
        ratios.append(last / first)
        shares.append(together.origin / alone.origin)
        print(
            f"one host {first:.2f} s, {alone.origin / 1e6:.1f} MB   {asked.hosts} hosts, the last "
            f"{last:.2f} s ({ratios[-1]:.2f}x), median {statistics.median(together.seconds):.2f} s"
            f"   origin {shares[-1]:.3f}x   the machine {together.busy:.1f} of "
            f"{last * (os.cpu_count() or 1):.1f} s, for one host {alone.busy:.1f} s",
            flush=True,
        )
        for what, began in ("one host", alone), (f"{asked.hosts} hosts", together):
            parts = (f"{name} {value:.2f} s" for name, value in began.spent.items())
            print(f"   CPU, {what}:", "   ".join(parts), flush=True)
    print(
        f"median of {asked.runs}: the last ready at {statistics.median(ratios):.2f}x of one alone, "
        f"origin {statistics.median(shares):.3f}x"
    )


def start(asked: argparse.Namespace, image: Path, folder: Path, hosts: int) -> Start:
    """Start the program on *hosts* fresh hosts at once."""
    plan = Plan(hosts, asked.rate, seed=not asked.no_seed, apart=asked.apart)
    with Site(plan, image, folder) as site:
        site.mount_all("--prefetch", "none", "--driver", "fuse")
        before, spent, used = site.origin_sent(), site.cpu(), _children()
        busy, since = machine_cpu(), time.monotonic()
        running = [program(mountpoint) for mountpoint in site.mountpoints]
        said = [each.communicate(timeout=120)[0] for each in running]
        busy, programs = machine_cpu() - busy, _children() - used
        assert all(each.returncode == 0 for each in running), "the program failed"
        parts = {name: value - spent[name] for name, value in site.cpu().items()}
        parts["programs"] = programs
        seconds = [float(each) - since for each in said]
        return Start(seconds, site.origin_sent() - before, busy, parts)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def program(mountpoint: Path) -> subprocess.Popen[str]:
    """Start it from a mount, with nothing of this machine's but the C library."""
    words = [str(mountpoint / "usr/bin/python3.11"), "-S", "-B", "-c", _PROGRAM]
    home = {"PYTHONHOME": str(mountpoint / "usr"), "PATH": "/usr/bin:/bin"}
    return subprocess.Popen(words, env=home, stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    main()
