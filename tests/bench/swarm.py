"""Swarms of mounts in network namespaces, against one curl over the same link (root only).

::

    python -m tests.bench.swarm                          ten hosts, 100 MiB, 100 Mbit/s, with a seed
    python -m tests.bench.swarm --no-seed --chunk 1MiB --size 1GiB --runs 1
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cli.options import parse_size
from fixtures.site import Plan, Site, digest_of, machine_cpu, place_for

_FILE = 10 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--size", type=parse_size, default="100MiB")
    parser.add_argument("--chunk", default="256KiB")
    parser.add_argument("--rate", default="100mbit")
    parser.add_argument("--no-seed", action="store_true")
    parser.add_argument("--lazy", action="store_true", help="by programs that read, not by warm")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--keep-logs", type=Path, help="copy the mounts' logs there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder or place_for(asked.size)) as folder:
        run(asked, Path(folder))


def run(asked: argparse.Namespace, folder: Path) -> None:
    tree, image = folder / "tree", folder / "image"
    tree.mkdir()
    for number in range(-(-asked.size // _FILE)):
        size = min(_FILE, asked.size - number * _FILE)
        (tree / f"file{number:04}").write_bytes(random.Random(number).randbytes(size))
    words = ["build", str(tree), str(image), "--chunk-size", asked.chunk, "--codec", "none"]
    subprocess.run([sys.executable, "-m", "cli", *words], check=True, stdout=subprocess.DEVNULL)
    expected = digest_of(tree)
    ratios, shares = [], []
    for number in range(asked.runs):
        plan = Plan(asked.hosts, asked.rate, seed=not asked.no_seed)
        with Site(plan, image, folder / f"run{number}") as site:
            alone = site.curl(asked.size)
            site.log_level = asked.log_level
            site.mount_all("--prefetch", "none", "--driver", "fuse")
            before, spent, busy = site.origin_sent(), site.cpu(), machine_cpu()
            seconds = site.read_all().wait().seconds if asked.lazy else site.warm_all(asked.size)
            last, busy = max(seconds), machine_cpu() - busy
            cpu = {name: value - spent[name] for name, value in site.cpu().items()}
            sent = site.origin_sent() - before
            if asked.keep_logs:
                for log in site.folder.glob("state*/*/log"):
                    shutil.copy(log, asked.keep_logs / f"{log.parts[-3]}.log")
            read = site.read_all().wait()
            assert read.right(expected), "wrong bytes"
            sent = site.origin_sent() - before
            ratios.append(last / alone)
            shares.append(sent / asked.size)
            print(
                f"curl {alone:.2f} s   last {last:.2f} s   ({ratios[-1]:.2f}x)   "
                f"origin {shares[-1]:.3f}x",
                flush=True,
            )
            print(
                "   CPU: "
                + "   ".join(f"{name} {value:.1f} s" for name, value in cpu.items())
                + f"   the machine {busy:.1f} of {last * (os.cpu_count() or 1):.1f} s",
                flush=True,
            )
    print(
        f"median of {asked.runs}: last {statistics.median(ratios):.2f}x of curl, "
        f"origin {statistics.median(shares):.3f}x of the image"
    )


if __name__ == "__main__":
    main()
