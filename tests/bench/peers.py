"""One peer to one peer over loopback: latency of a missing chunk, and a whole GiB.

::

    python -m tests.bench.peers [--tls] [--size 1GiB]

The parent is ``naiad peer`` over a full cache, the scheduler ``naiad scheduler``; the child is this
process, without a file system: scheduler asked, parent dialled, chunks verified and cached. What a
virtual machine takes for memory that it has not touched lately varies by several times, and a whole
GiB with it; so a new file is written beside each.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from chunkstore import Blob, Chunk, Codec, Digest, Extent, Missing
from chunkstore.blobcache import BlobCache
from chunkstore.imagestore import ImageStore
from chunkstore.ledger import Ledger
from chunkstore.memory import MemoryChunks
from chunkstore.shelf import Shelf
from cli.options import parse_size
from fixtures.swarmcerts import SwarmCerts
from p2p.download import Download
from p2p.security import Identity, Papers, Role, Security
from p2p.source import PeerSource
from p2p.swarm import Host, Swarm

CHUNK = 1 << 20
OWNER = Digest.of(b"bench")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=parse_size, default="1GiB")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        run(asked, Path(folder))


def run(asked: argparse.Namespace, folder: Path) -> None:
    blob, chunks = fill(folder / "parent", asked.size)
    papers: dict[Role, Papers | None] = dict.fromkeys(Role)
    if asked.tls:
        certs = SwarmCerts(folder / "pki")
        papers = {role: certs.papers(role) for role in Role}
    with service(folder, papers[Role.SCHEDULER], "scheduler", "--listen", "127.0.0.1:0") as (at, _):
        words = ("peer", "--scheduler", at, "--cache", str(folder / "parent"))
        with service(folder, papers[Role.PEER], *words) as (_, parent):
            time.sleep(1)  # it tells the scheduler what it has
            mine = papers[Role.PEER]
            security = Security(Identity(mine)) if mine else Security()
            for name, child in (("cold", cold), ("random", scattered), ("whole", whole)):
                for number in range(asked.runs):
                    cache = folder / f"child-{name}-{number}"
                    used = cpu(parent)
                    line = trio.run(child, Child(cache, at, security, blob, chunks))
                    print(f"{name:8s} {line}   CPU of the parent {cpu(parent) - used:.2f} s")
                    shutil.rmtree(cache)
                    if child is whole:
                        print(f"written  {written(folder / 'written', asked.size)}")


def fill(folder: Path, size: int) -> tuple[Blob, list[Chunk]]:
    """Put a blob of *size* random bytes into a cache."""
    count = size // CHUNK
    blob = Blob("bench", size, size, count)
    cache = BlobCache(folder)
    shelf = Shelf(cache, blob, OWNER)
    block, chunks = random.Random(5).randbytes(CHUNK), []
    for index in range(count):
        data = index.to_bytes(8, "little") + block[8:]
        place = index * CHUNK
        chunks.append(Chunk(index, Digest.of(data), place, CHUNK, place, CHUNK, Codec.NONE))
        shelf.put(chunks[-1], data)
    shelf.close()
    cache.close()
    return blob, chunks


@contextmanager
def service(folder: Path, papers: Papers | None, *words: str) -> Iterator[tuple[str, int]]:
    """Run a service; yields its address and process id."""
    secure = []
    if papers is not None:
        files = (("--certificate", papers.certificate), ("--key", papers.key), ("--ca", papers.ca))
        secure = [str(word) for pair in files for word in pair]
    with (folder / f"{words[0]}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", *words, *secure],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1], process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        process.stdout.close()


def written(path: Path, size: int) -> str:
    """Write as many bytes to a new file and do nothing else: what fresh memory costs just now."""
    data = random.Random(6).randbytes(CHUNK)
    start, used = time.perf_counter(), time.process_time()
    with path.open("wb", buffering=0) as file:
        for _ in range(size // CHUNK):
            file.write(data)
    took, used = time.perf_counter() - start, time.process_time() - used
    path.unlink()
    return f"{size >> 20} MiB to a new file: {size / took / 1e9:.2f} GB/s   CPU {used:.2f} s"


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


class Child:
    """What a mount is without its file system."""

    def __init__(
        self, cache: Path, scheduler: str, security: Security, blob: Blob, chunks: list[Chunk]
    ) -> None:
        self.cache = BlobCache(cache)
        self.swarm = Swarm(self.cache, Host(schedulers=(scheduler,)), security)
        self.blob = blob
        self.chunks = chunks
        self.ledger = Ledger()
        nothing = MemoryChunks({})
        source = PeerSource(self._join, nothing, self.ledger)
        self.store = ImageStore(self.cache, source, owner=OWNER, deadline=30, ledger=self.ledger)
        source.watch(self.store.demand)
        self.store.workers = 16

    async def _join(self, blob: Blob) -> Download:
        return await self.swarm.join(blob)

    async def start(self, nursery: trio.Nursery) -> None:
        await nursery.start(self.swarm.run)
        await nursery.start(self.store.run)

    async def read(self, index: int) -> float:
        """Read one chunk; return the seconds."""
        start = time.perf_counter()
        await self.store.read([Extent(self.blob, self.chunks[index], 0, 4096)])
        return time.perf_counter() - start

    def check(self, count: int) -> None:
        if self.ledger.tallies["peer"].chunks != count:
            raise Missing(f"{self.ledger.tallies}")


async def cold(child: Child) -> str:
    """From nothing: scheduler dialled, task joined, parent dialled, one chunk."""
    async with trio.open_nursery() as nursery:
        start = time.perf_counter()
        await child.start(nursery)
        await child.read(0)
        took = time.perf_counter() - start
        nursery.cancel_scope.cancel()
    return f"first chunk of a cold start {1e3 * took:.1f} ms"


async def scattered(child: Child) -> str:
    """A thousand random chunks, one after the other."""
    count = min(1000, len(child.chunks))
    async with trio.open_nursery() as nursery:
        await child.start(nursery)
        await child.read(0)
        order = random.Random(1).sample(range(1, len(child.chunks)), count - 1)
        took = sorted([await child.read(index) for index in order])
        nursery.cancel_scope.cancel()
    child.check(count)
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    return f"{count} single chunks of 1 MiB: p50 {1e3 * p50:.2f} ms, p99 {1e3 * p99:.2f} ms"


async def whole(child: Child) -> str:
    """Everything, in bulk."""
    async with trio.open_nursery() as nursery:
        await child.start(nursery)
        await child.read(0)
        start, used = time.perf_counter(), time.process_time()

        async def put(chunk: Chunk, data: bytes) -> None:
            await child.store.put(child.blob, chunk, data)

        source = child.store.source
        assert isinstance(source, PeerSource)
        await source.take_all(child.blob, child.chunks, put, 5.0)  # type: ignore[arg-type]
        took, used = time.perf_counter() - start, time.process_time() - used
        nursery.cancel_scope.cancel()
    child.check(len(child.chunks))
    rate = child.blob.size / took / 1e9
    return f"{child.blob.size >> 20} MiB: {rate:.2f} GB/s   CPU of the child {used:.2f} s"


if __name__ == "__main__":
    main()
