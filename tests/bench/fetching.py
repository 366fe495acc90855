"""Fetches of one file in network namespaces, against one curl over the same link (root only).

::

    python -m tests.bench.fetching                       ten hosts, 100 MiB, 100 Mbit/s, with a seed
    python -m tests.bench.fetching --no-seed --runs 1
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cli.options import parse_size
from fixtures.site import Plan, Site, machine_cpu, place_for

_ROOT = Path(__file__).parents[2]
_STEP = 10 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--size", type=parse_size, default="100MiB")
    parser.add_argument("--rate", default="100mbit")
    parser.add_argument("--no-seed", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder or place_for(asked.size)) as folder:
        run(asked, Path(folder))


def run(asked: argparse.Namespace, folder: Path) -> None:
    served = folder / "served"
    served.mkdir()
    whole = hashlib.sha256()
    with (served / "file").open("wb") as out:
        for number in range(-(-asked.size // _STEP)):
            data = random.Random(number).randbytes(min(_STEP, asked.size - number * _STEP))
            whole.update(data)
            out.write(data)
    results = []
    for number in range(asked.runs):
        plan = Plan(asked.hosts, asked.rate, seed=not asked.no_seed)
        with Site(plan, served, folder / f"run{number}") as site:
            results.append(_once(asked, site, whole.hexdigest()))
    ratios, origins = zip(*results, strict=True)
    print(
        f"median of {asked.runs}: last {statistics.median(ratios):.2f}x of curl, "
        f"origin {statistics.median(origins):.3f}x of the file"
    )


def _once(asked: argparse.Namespace, site: Site, digest: str) -> tuple[float, float]:
    url = f"{site.url}/file"
    start = time.monotonic()
    words = site.hosts[0].words("curl", "-s", "-o", "/dev/null", url)
    subprocess.run(words, check=True)
    alone = time.monotonic() - start
    before = _sent(site)
    running = [_fetch(site, number, url, digest) for number in range(asked.hosts)]
    for each in running:  # on ten machines nobody would wait for the others' imports
        assert each.stdout is not None
        each.stdout.readline()
    start, used, busy = time.monotonic(), _children(), machine_cpu()
    for each in running:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    said = [json.loads(each.communicate()[0]) for each in running]
    last, busy = time.monotonic() - start, machine_cpu() - busy
    origin = (_sent(site) - before) / asked.size
    print(
        f"curl {alone:.2f} s   last {last:.2f} s ({last / alone:.2f}x)   origin {origin:.3f}x   "
        f"from peers {sum(each['bytes']['peer'] for each in said) / asked.size:.2f}x   "
        f"CPU of the fetches, with their start {_children() - used:.1f} s   "
        f"the machine {busy:.1f} of {last * (os.cpu_count() or 1):.1f} s",
        flush=True,
    )
    return last / alone, origin


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


_LOADED = """
import importlib, sys
importlib.import_module("cli.commands.fetch")
main = importlib.import_module("cli.main").main
print("loaded", flush=True)
sys.stdin.readline()
main()
"""


def _fetch(site: Site, number: int, url: str, digest: str) -> subprocess.Popen[str]:
    words = ["fetch", url, "-o", str(site.folder / f"out{number}"), "--json", "--insecure"]
    words += ["--cache", str(site.folder / f"cache{number}"), "--digest", f"sha256:{digest}"]
    words += ["--scheduler", site.scheduler.address]
    command = site.hosts[number].words(sys.executable, "-c", _LOADED, *words)
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
    )


def _sent(site: Site) -> int:
    words = site.scheduler_host.words("curl", "-s", f"{site.url}/.statistics")
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return int(json.loads(said)["sent"])


if __name__ == "__main__":
    main()
