"""The cache by itself: chunks out of a memory origin into cache files, and looks at what is there.

python -m tests.bench.cache [--runs 5] [--gib 1] [--json FILE] [FOLDER]
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import trio

from chunkstore import Arrived, Blob, Codec, Digest, Extent
from chunkstore.blobcache import BlobCache
from chunkstore.imagestore import ImageStore
from chunkstore.originchunks import OriginChunks
from chunkstore.retrying import Retrying
from fixtures.blobs import make_blob

from .side_by_side import Table

PART = 8 << 20
"""Decoded bytes that are made; a blob repeats them."""

WINDOW = 8 << 20
"""Bytes that the reader wants ahead, as a mount does for a sequential file."""

READ = 1 << 20


class RepeatingOrigin:
    """A blob that repeats one part for ever."""

    def __init__(self, part: bytes) -> None:
        self._part = memoryview(part)

    async def read(self, blob_id: str, start: int, into: memoryview, arrived: Arrived) -> None:
        done = 0
        while done < len(into):
            at = (start + done) % len(self._part)
            size = min(256 << 10, len(into) - done, len(self._part) - at)
            into[done : done + size] = self._part[at : at + size]
            done += size
            arrived(done)
            await trio.lowlevel.checkpoint()


class Bench:
    """One blob of chunks of one size, read front to back."""

    def __init__(self, root: Path, size: int, chunk_size: int, codec: Codec) -> None:
        self._root = root
        self._made = made = make_blob([chunk_size] * (PART // chunk_size), codec=codec)
        times = size // PART
        self._blob = Blob("bench", size, len(made.stored) * times, len(made.chunks) * times)
        self._chunks = [
            replace(
                chunk,
                index=turn * len(made.chunks) + chunk.index,
                offset=turn * PART + chunk.offset,
                stored_offset=turn * len(made.stored) + chunk.stored_offset,
            )
            for turn in range(times)
            for chunk in made.chunks
        ]
        self._per_read = max(1, READ // chunk_size)

    def cold(self) -> float:
        """Return GB/s of a first read."""
        return trio.run(self._run)[0]

    def look(self) -> float:
        """Return microseconds of a look at a ready MiB."""
        return trio.run(self._run)[1]

    async def _run(self) -> tuple[float, float]:
        shutil.rmtree(self._root, ignore_errors=True)
        cache = BlobCache(self._root)
        source = OriginChunks(Retrying(RepeatingOrigin(self._made.stored), deadline=30))
        store = ImageStore(cache, source, owner=Digest.of(b"bench"), deadline=30)
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            start = time.perf_counter()
            await self._read(store)
            middle = time.perf_counter()
            await self._read(store)
            stop = time.perf_counter()
            nursery.cancel_scope.cancel()
        cache.close()
        reads = len(self._chunks) / self._per_read
        return self._blob.size / (middle - start) / 1e9, (stop - middle) / reads * 1e6

    async def _read(self, store: ImageStore) -> None:
        extents = [Extent(self._blob, chunk, 0, chunk.size) for chunk in self._chunks]
        ahead = WINDOW // self._chunks[0].size
        wanted = 0
        for at in range(0, len(extents), self._per_read):
            part = extents[at : at + self._per_read]
            if store.look(part) is None:
                more = self._chunks[max(at, wanted) : at + self._per_read + ahead]
                wanted = max(at, wanted) + store.want(self._blob, more)
                await store.read(part)


@click.command(help=__doc__)
@click.option("--runs", default=5)
@click.option("--gib", default=1.0)
@click.option("--json", "out", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path), required=False)
def main(runs: int, gib: float, out: Path | None, folder: Path | None) -> None:
    """Print the table."""
    table = Table(runs, out)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        root, size = Path(scratch) / "cache", int(gib * (1 << 30)) // PART * PART
        for codec in (Codec.NONE, Codec.LZ4):
            benches = {
                f"{chunk_size >> 10} KiB": Bench(root, size, chunk_size, codec)
                for chunk_size in (1 << 20, 256 << 10)
            }
            what = f"cold through the cache, {codec.name.lower()} chunks"
            table.row(what, "GB/s", {name: bench.cold for name, bench in benches.items()})
        table.row("look at a ready MiB", "µs", {n: bench.look for n, bench in benches.items()})
    table.write()


if __name__ == "__main__":
    main()
