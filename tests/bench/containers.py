"""From pull to a program's line: containers by overlayfs, naiad and, where it is there, stargz.

    python -m tests.bench.containers [--runs 5] [--json FILE] [--stargz PROGRAM] [--crowd 50]
        [--link loopback] [--only CONTENDER] [--keep FOLDER] DIR COMMAND [DIR COMMAND …]

DIR is a root directory, such as ``debootstrap --variant=minbase --include=python3-numpy bookworm
DIR`` makes, and COMMAND what runs in it, quoted. Everything is cold for each run: content,
snapshots, caches of snapshotters, page cache; but the clients have been run once since, as those of
a node in use have, unless ``--cold-clients`` asks otherwise. Bytes are those that pass the link to
the registry.
With ``--keep`` the images are pushed once, whatever the runs; ``--runs 0`` does only that.
Needs root, containerd, runc, docker-registry and skopeo; for stargz Debian's ctr-remote and a
``containerd-stargz-grpc``, which Debian has only the library of.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shlex
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from shutil import which

import click

from fixtures.containerd import RealContainerd, mounts_below
from fixtures.node import Layer, Node, running_node, tar_of
from fixtures.readiness import Program, readiness

from .side_by_side import Table, drop_caches, own_memory

RATES = {"loopback": None, "100 Mbit/s": 100e6 / 8}
CONTENDERS = {
    "naiad with list": "listed",
    "naiad": "lazy",
    "stargz optimised": "esgzopt",
    "stargz": "esgz",
    "overlayfs": "1",
}
"""Each with the tag of its image."""

_REQUEST = '"GET /v2/'
"""In the registry's log, once for each."""

_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


class Stargz:
    """The rival's snapshotter; nothing of it stays between runs."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.address = folder / "stargz.sock"
        self._program, self._folder = program, folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it anew, with nothing cached."""
        self.stop()
        config = self._folder / "config.toml"
        config.write_text("noprefetch = false\nno_background_fetch = true\n")
        words = ["-address", self.address, "-root", self._folder / "root", "-config", config]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(word) for word in (self._program, *words)], stdout=log, stderr=log
            )

    def stop(self) -> None:
        """End it and remove what it kept."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
        for place in mounts_below(self._folder):
            subprocess.run(["umount", "-l", place], check=False)
        shutil.rmtree(self._folder / "root", ignore_errors=True)


class Bench:
    """One node, and what is measured on it."""

    def __init__(self, node: Node, containerd: RealContainerd, stargz: Stargz | None) -> None:
        self.node, self.containerd, self.stargz = node, containerd, stargz
        self.bytes: dict[str, list[int]] = {}
        self.pulls: dict[str, list[float]] = {}
        """Seconds that the pull alone has taken."""
        self.cold_clients = False

    def prepare(self, name: str, tree: Path, command: Sequence[str]) -> None:
        """Push the image of *tree* in every form, but those that are there."""
        source = f"{self.node.registry.host}/{name}:1"
        forms: dict[str, Callable[[], object]] = {
            "1": partial(self._push, name, tree, command),
            "lazy": partial(self._convert, source, "lazy"),
            "listed": partial(
                self._convert, source, "listed", "--prefetch-from", shlex.join(command)
            ),
        }
        if self.stargz is not None:
            period = ("--period", "6", "--args", json.dumps(command))
            forms["esgz"] = partial(self._optimise, source, "esgz", "convert", "--estargz")
            forms["esgzopt"] = partial(self._optimise, source, "esgzopt", "optimize", *period)
        for form, work in forms.items():
            note = self.node.registry.storage / f"prepared-{name}-{form}"
            if not note.exists():
                work()
                note.touch()

    def _push(self, name: str, tree: Path, command: Sequence[str]) -> None:
        plain = tar_of(tree)
        digest = f"sha256:{hashlib.sha256(plain).hexdigest()}"
        layer = Layer(gzip.compress(plain, 6, mtime=0), media_type=_GZIP)
        self.node.push([layer], f"{name}:1", [digest], command)

    def _convert(self, source: str, tag: str, *options: str) -> None:
        words = ("convert", "--plain-http", "--codec", "zstd", *options, source)
        self.node.naiad.run(*words, f"{source[:-2]}:{tag}", timeout=1800)

    def _optimise(self, source: str, tag: str, *words: str) -> None:
        image = f"{source[:-2]}:{tag}"
        self.containerd.ctr("images", "pull", "--plain-http", source, timeout=600)
        remote = ["ctr-remote", "--address", str(self.containerd.address), "images", *words]
        subprocess.run(
            [*remote, "--oci", source, image], check=True, timeout=1800, stdout=subprocess.DEVNULL
        )
        self.containerd.ctr("images", "push", "--plain-http", image, timeout=600)
        self.containerd.clear()

    def measure(self, what: str, image: str, rate: float | None, command: Sequence[str]) -> float:
        """Return the seconds from the pull of *image* by *what* to the end of *command*."""
        snapshotter = what.partition(" ")[0]
        self._clean(snapshotter)
        drop_caches()
        if not self.cold_clients:
            self._run_clients()
        program = Program(command)
        found = readiness(self.node, self.containerd, image, snapshotter, program, rate)
        assert found.output, "the program says a line"
        self.pulls.setdefault(what, []).append(found.pull)
        self.bytes.setdefault(what, []).append(found.fetched)
        return found.total

    def _run_clients(self) -> None:
        self.node.naiad.run("pull", "--help")
        for client in ("ctr", "ctr-remote"):
            if which(client):
                subprocess.run([client, "--help"], check=True, stdout=subprocess.DEVNULL)

    def _clean(self, snapshotter: str) -> None:
        """Have a containerd without images, and a *snapshotter* that knows nothing."""
        self.containerd.clear()
        if snapshotter == "naiad":
            self.node.stop()
            shutil.rmtree(self.node.naiad.cache, ignore_errors=True)
            self.node.start()
            self.containerd.reach_snapshotter()
        elif snapshotter == "stargz" and self.stargz is not None:
            self.stargz.start()
            self.containerd.reach_snapshotter("stargz")

    def crowd(self, image: str, command: Sequence[str], count: int) -> None:
        """Start *count* containers at once and print what it took."""
        self._clean("naiad")
        drop_caches()
        reference = f"{self.node.registry.host}/{image}"
        log = self.node.naiad.folder / "registry/log"
        before = log.read_text().count(_REQUEST)
        start = time.perf_counter()
        self.node.pull(image)
        run = partial(self.containerd.container, reference)
        with ThreadPoolExecutor(count) as pool:
            said = [pool.submit(run, f"crowd{number}", *command) for number in range(count)]
        total = time.perf_counter() - start
        assert len({one.result() for one in said}) == 1, "all say the same"
        facts = self.node.image_facts(image.partition(":")[0])
        requests = log.read_text().count(_REQUEST) - before
        memory = own_memory(self.node.daemon())
        print(f"{count} containers of {image} at once: {total:.1f} s, {requests} requests to the")
        print(f"  registry, daemon {memory:.0f} MiB of its own; fetched {facts['sources']},")
        print(f"  here {facts['ready_bytes']} bytes, in the image {facts['chunks']} chunks")
        self.containerd.clear()


@contextmanager
def ready(stargz: Path | None, keep: Path | None) -> Iterator[Bench]:
    """Yield a bench on folders of its own; what was pushed stays in *keep*."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="naiad-bench-")))
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (folder / "node/registry").mkdir(parents=True)
            (folder / "node/registry/storage").symlink_to(keep.absolute())
        rival = None
        plugins = {}
        if stargz is not None:
            (folder / "stargz").mkdir()
            rival = Stargz(stargz, folder / "stargz")
            rival.start()
            stack.callback(rival.stop)
            plugins["stargz"] = rival.address
        node, containerd = stack.enter_context(running_node(folder / "node", plugins=plugins))
        yield Bench(node, containerd, rival)


@click.command()
@click.argument("images", nargs=-1, required=True)
@click.option("--runs", default=5, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path))
@click.option("--stargz", type=click.Path(exists=True, path_type=Path))
@click.option("--crowd", default=50, show_default=True, help="Containers at once; 0: none.")
@click.option("--link", "links", type=click.Choice(list(RATES)), multiple=True)
@click.option("--only", type=click.Choice([*CONTENDERS]), multiple=True)
@click.option("--cold-clients", is_flag=True, help="Measure also how clients come from the disk.")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path))
def main(  # noqa: PLR0913  # one for each option
    images: tuple[str, ...],
    runs: int,
    out: Path | None,
    stargz: Path | None,
    crowd: int,
    links: tuple[str, ...],
    only: tuple[str, ...],
    cold_clients: bool,
    keep: Path | None,
) -> None:
    """Measure each image over each link."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # all is ended then, as by Ctrl-C
    table = Table(runs, out)
    wanted = [
        what
        for what in CONTENDERS
        if (what in only if only else stargz is not None or not what.startswith("stargz"))
    ]
    with ready(stargz, keep) as bench:
        bench.cold_clients = cold_clients
        for tree, text in zip(images[::2], images[1::2], strict=True):
            name, command = Path(tree).name, shlex.split(text)
            bench.prepare(name, Path(tree), command)
            for link in (links or RATES) if runs else ():
                measured(bench, table, name, link, command, wanted)
            if crowd:
                bench.crowd(f"{name}:listed", command, crowd)
    table.write()


def measured(
    bench: Bench, table: Table, name: str, link: str, command: Sequence[str], wanted: Sequence[str]
) -> None:
    """Measure one image over one link."""
    bench.bytes.clear()
    bench.pulls.clear()
    measures: dict[str, Callable[[], float]] = {
        what: partial(bench.measure, what, f"{name}:{CONTENDERS[what]}", RATES[link], command)
        for what in wanted
    }
    table.row(f"{name}, {link}: pull and run", "s", measures)
    told = (f"{what} {max(size) / 1e6:.1f}" for what, size in bench.bytes.items())
    print(f"{'':58s} {'   '.join(told)} MB fetched", flush=True)
    told = (f"{what} {statistics.median(took):.2f}" for what, took in bench.pulls.items())
    print(f"{'':58s} {'   '.join(told)} s of it for the pull", flush=True)


if __name__ == "__main__":
    main()
