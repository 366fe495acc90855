"""build: from a source to an image.

Data's way: the source hands tasks to the packer; threads read, hash and compress; the results are
taken in order, so that the same input gives the same bytes; new chunks go to the blob, which a
thread of its own hashes and writes; where files are listed that a start needs, the blob is laid out
anew in their order; the tree, complete then, is encoded. Memory is bounded by the packer's window
and the blob's queue, whatever the size of the data; only metadata is held.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from chunkstore import Algorithm, Codec, Digest

from . import listed, v6_encode
from .blobtail import encode_packed_tail
from .blobwriter import BlobWriter
from .bootstrap import Bootstrap
from .chunkdict import ChunkDict
from .chunking import checked_chunk_size, chunk_size_for
from .errors import BadSource
from .ordered import Ordered
from .packedfiles import PackedFiles
from .packer import WINDOW, Packer
from .packing import Packed, Rules
from .relayout import lay_out, listed_first
from .scratch import scratch
from .sources.source import Harvest, Source
from .starting import files_of_start
from .stock import Stock
from .targets.draft import Draft, Piece, Target
from .tree import Node
from .v6_tables import BlobEntry

Trace = Callable[[Draft], Sequence[bytes]]
"""Tries a built image out, and returns the paths that a start needed, first things first."""

Progress = Callable[[int, int | None], None]
"""Told, in the caller's thread, how many bytes are packed and, if known, of about how many."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How an image is built."""

    codec: Codec = Codec.LZ4
    chunk_size: int | None = None
    """Bytes; None: by the size of the image."""
    dicts: Sequence[Bootstrap] = ()
    """Older images whose chunks need not be stored again. They stay the caller's to close."""
    prefetch: Sequence[bytes] = ()
    """Paths in the image that a mount should fetch ahead, first things first."""
    trace: Trace | None = None
    """Finds more of them, once all is packed; it gets an image that nobody else ever sees."""
    threads: int | None = None
    """None: as many as this process may use cores."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What was built."""

    bootstrap: Digest
    """SHA-256 of the bootstrap, which pins the image."""
    bootstrap_size: int
    blob: str | None
    """Id of the new blob; None where older images' blobs hold all the data."""
    blob_size: int
    """Bytes of its file."""
    blobs: tuple[str, ...]
    """Ids of all the blobs the image needs."""
    size: int
    """Bytes of all files, holes and all."""
    shared: int
    """Bytes of them that needed no storing, because the same chunk was there already."""
    chunks: int
    """Different ones."""
    chunk_size: int
    codec: Codec
    warnings: tuple[str, ...]


def build(
    source: Source,
    target: Target,
    options: BuildOptions | None = None,
    progress: Progress | None = None,
) -> BuildResult:
    """Build an image of *source* and publish it at *target*.

    Raises BadSource naming the entry that cannot be packed, Malformed for a wrong chunk size,
    OSError where *target* cannot be written. Whatever happens, an image is there completely or
    not at all.
    """
    options = options or BuildOptions()
    _check_apart(source, target)
    with _uncollected(), scratch(target.place) as folder:
        total = source.prepare()
        return _Build(source, options, folder, total).run(target, progress)


def _check_apart(source: Source, target: Target) -> None:
    if source.place is not None:
        inner, outer = target.place.resolve(), source.place.resolve()
        if inner.is_relative_to(outer):
            raise BadSource(f"{target.place} is inside {source.place}, which is to be packed")


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the cycle collector away: nothing here makes cycles.

    It would look at every node again and again, for a twentieth of the time of a large tree.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Build:
    """One build, in its scratch folder."""

    def __init__(
        self, source: Source, options: BuildOptions, folder: Path, total: int | None
    ) -> None:
        self._source = source
        self._options = options
        self._folder = folder
        self._total = total
        self._dict = ChunkDict(options.dicts)
        self._rules = Rules(
            chunk_size=self._chunk_size(),
            codec=options.codec,
            algorithm=self._dict.algorithm or Algorithm.BLAKE3,
        )

    def run(self, target: Target, progress: Progress | None) -> BuildResult:
        """Pack, encode, publish."""
        with ExitStack() as files:
            writer = files.enter_context(BlobWriter(self._folder / "packed"))
            stock = Stock(self._rules, writer, self._dict)
            harvest, size = self._pack(stock, progress)
            nodes, missing = self._listed(harvest, stock, writer)
            writer = self._laid_out(stock, nodes, writer, files)
            blob, entries = self._finish_blob(stock, writer)
            bootstrap = self._encode("bootstrap", harvest.root, stock, entries, nodes)
            writer.sync()
        draft = Draft(
            self._folder, bootstrap, blob, entries, self._rules.chunk_size, harvest.config
        )
        words = target.publish(draft)
        return BuildResult(
            bootstrap=bootstrap.digest,
            bootstrap_size=bootstrap.size,
            blob=blob.digest.hex if blob else None,
            blob_size=blob.size if blob else 0,
            blobs=tuple(entry.blob.id for entry in entries),
            size=size,
            shared=stock.shared,
            chunks=len(stock.chunks),
            chunk_size=self._rules.chunk_size,
            codec=self._rules.codec,
            warnings=(*harvest.warnings, *missing, *words),
        )

    def _chunk_size(self) -> int:
        asked, lent = self._options.chunk_size, self._dict.chunk_size
        if asked and lent and asked != lent:
            raise BadSource(f"the chunk dict has chunks of {lent} bytes, not {asked}")
        return checked_chunk_size(asked or lent or chunk_size_for(self._total))

    def _pack(self, stock: Stock, progress: Progress | None) -> tuple[Harvest, int]:
        total = self._total

        def advance(done: int) -> None:
            if progress is not None:
                progress(done, total and max(done, total))

        threads = self._options.threads or len(os.sched_getaffinity(0))
        with Ordered[Packed](threads, WINDOW) as ordered:
            packer = Packer(self._rules, stock, ordered, self._folder, advance)
            harvest = self._source.read(packer)
            ordered.drain()
        if progress is not None:
            progress(packer.size, packer.size)
        return harvest, packer.size

    def _listed(
        self, harvest: Harvest, stock: Stock, writer: BlobWriter
    ) -> tuple[list[Node], list[str]]:
        """Return the files that a start needs, in its order, and what is to be said of them."""
        paths, trace = list(self._options.prefetch), self._options.trace
        if trace is not None:
            writer.abandon()
            blob, entries = self._finish_blob(stock, writer)
            bootstrap = self._encode("trial", harvest.root, stock, entries, ())
            rules = self._rules
            draft = Draft(self._folder, bootstrap, blob, entries, rules.chunk_size, harvest.config)
            paths += trace(draft)
        elif not paths and harvest.config and stock.own:
            writer.settle()
            with PackedFiles(stock, self._rules, writer.path) as packed:
                return files_of_start(harvest.root, harvest.config, packed.read), []
        return listed.find(harvest.root, paths)

    def _laid_out(
        self, stock: Stock, nodes: Sequence[Node], packed: BlobWriter, files: ExitStack
    ) -> BlobWriter:
        """Return the blob with what *nodes* need in front; *packed* itself where it is there."""
        order = listed_first(stock, nodes) if nodes else None
        if order is None and self._options.trace is None:
            return packed
        writer = files.enter_context(BlobWriter(self._folder / "blob"))
        if self._options.trace is None:
            packed.abandon()
            packed.settle()
        lay_out(stock, order or range(len(stock.own)), packed.path, writer)
        return writer

    def _finish_blob(
        self, stock: Stock, writer: BlobWriter
    ) -> tuple[Piece | None, tuple[BlobEntry, ...]]:
        """Close the blob, if anything is in it, and put its entry in the place kept for it."""
        if not stock.own:
            writer.finish()
            return None, tuple(entry for entry in stock.entries if entry)
        tail = encode_packed_tail(stock.own, stock.own.digests, writer.size, writer.write)
        piece = Piece(writer.path, writer.finish(), writer.size)
        rules = self._rules
        new = tail.entry(piece.digest.hex, rules.chunk_size, rules.codec, rules.algorithm)
        return piece, tuple(entry or new for entry in stock.entries)

    def _encode(
        self,
        name: str,
        root: Node,
        stock: Stock,
        entries: tuple[BlobEntry, ...],
        prefetch: Sequence[Node],
    ) -> Piece:
        return Piece.write(
            self._folder / name,
            lambda file: v6_encode.encode(
                root,
                entries,
                stock.chunks,
                file,
                chunk_size=self._rules.chunk_size,
                prefetch=prefetch,
            ),
        )
