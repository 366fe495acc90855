"""Every chunk of an image, read and hashed."""

from __future__ import annotations

import threading

import pytest

from chunkstore import Codec, Missing, Refused, Unreachable
from fixtures.foreign import batched_blob, v5_bootstrap
from fixtures.gallery import gallery
from fixtures.sketch import Sketch
from rafs import Bootstrap
from rafs.chunkmap import Place
from rafs.verify import damages


class _Blobs:
    """Stored blobs in memory that count what is read of them."""

    def __init__(self, sketch: Sketch) -> None:
        entries, files = sketch.finish()
        self.files = {
            entry.blob.id: bytearray(file) for entry, file in zip(entries, files, strict=True)
        }
        self.reads: list[int] = []
        self._lock = threading.Lock()

    def read(self, blob_id: str, start: int, stop: int) -> bytes:
        with self._lock:
            self.reads.append(stop - start)
        return bytes(self.files[blob_id][start:stop])


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_right_data_has_no_findings_and_progress_adds_up(threads: int) -> None:
    sketch = gallery()
    for bootstrap in (sketch.bootstrap(), v5_bootstrap(sketch)):
        image, blobs, told = Bootstrap.decode(bootstrap), _Blobs(sketch), [0, 0]

        def progress(size: int, chunks: int, told: list[int] = told) -> None:
            told[0] += size
            told[1] += chunks

        assert list(damages(image, blobs.read, threads=threads, progress=progress)) == []
        chunks = [chunk for blob in sketch.blobs for chunk in blob.chunks]
        assert told == [sum(chunk.size for chunk in chunks), len(chunks)]


def test_chunks_that_adjoin_are_read_together_in_bounded_ranges() -> None:
    sketch = Sketch(1 << 20)
    sketch.root.children[b"big"] = sketch.file(
        b"".join(bytes([number]) * (1 << 20) for number in range(10))
    )
    blobs = _Blobs(sketch)
    assert not list(damages(Bootstrap.decode(sketch.bootstrap()), blobs.read))
    assert sorted(blobs.reads) == [2 << 20, 4 << 20, 4 << 20]


def test_each_damaged_chunk_is_named_and_no_other() -> None:
    sketch = gallery()
    blobs, image = _Blobs(sketch), Bootstrap.decode(sketch.bootstrap())
    name = image.blobs[0].id
    blobs.files[name][5000] ^= 1
    (found,) = damages(image, blobs.read)
    assert str(found).startswith(f"chunk 1 of blob {name} at byte 4096: does not match its digest")


def test_a_blob_that_is_cut_off_damages_what_was_behind() -> None:
    sketch = gallery()
    blobs, image = _Blobs(sketch), Bootstrap.decode(sketch.bootstrap())
    del blobs.files[image.blobs[0].id][5000:]
    found = [one.structure.split()[1] for one in damages(image, blobs.read)]
    assert found == [str(chunk.index) for chunk in sketch.blobs[0].chunks[1:]]


@pytest.mark.parametrize("error", [Missing, Refused])
def test_a_blob_that_is_not_there_is_one_finding(error: type[Missing] | type[Refused]) -> None:
    sketch = Sketch(1 << 20)
    sketch.root.children[b"big"] = sketch.file(
        b"".join(bytes([number]) * (1 << 20) for number in range(30))
    )
    image = Bootstrap.decode(sketch.bootstrap())

    def read(blob_id: str, start: int, stop: int) -> bytes:
        raise error("no such blob")

    (found,) = damages(image, read, threads=1)
    assert str(found) == f"blob {image.blobs[0].id} at byte 0: no such blob"


def test_a_read_that_fails_damages_its_chunks_only() -> None:
    sketch = gallery()
    blobs, image = _Blobs(sketch), Bootstrap.decode(sketch.bootstrap())

    def read(blob_id: str, start: int, stop: int) -> bytes:
        if blob_id == image.blobs[1].id:
            raise Unreachable("nobody answered")
        return blobs.read(blob_id, start, stop)

    found = list(damages(image, read))
    assert [one.what for one in found] == ["nobody answered"] * len(sketch.blobs[1].chunks)


def test_batched_chunks_are_decoded_once_for_all_and_each_is_checked() -> None:
    contents = [b"%d" % number * 700 for number in range(9)]
    sketch = Sketch(4096)
    for number, data in enumerate(contents):
        sketch.root.children[b"%d" % number] = sketch.file(data)
    made = batched_blob(contents, 9, Codec.ZSTD, Codec.NONE)
    image = Bootstrap.decode(sketch.bootstrap())
    size = sum(map(len, contents))
    image.attach(0, lambda index: Place(0, made.ci_offset, Codec.ZSTD, 700 * index, size))
    reads = []

    def read(blob_id: str, start: int, stop: int) -> bytes:
        reads.append((start, stop))
        return made.file[start:stop]

    assert list(damages(image, read)) == []
    assert reads == [(0, made.ci_offset)]
    image.attach(0, lambda index: Place(0, made.ci_offset, Codec.ZSTD, 0, size))
    assert len(list(damages(image, read))) == 8


def test_whoever_stops_listening_ends_the_reading() -> None:
    sketch = Sketch(1 << 20)
    sketch.root.children[b"big"] = sketch.file(
        b"".join(bytes([number]) * (1 << 20) for number in range(100))
    )
    blobs = _Blobs(sketch)
    for file in blobs.files.values():
        file[:] = bytes(len(file))
    looking = damages(Bootstrap.decode(sketch.bootstrap()), blobs.read, threads=1)
    next(looking)
    looking.close()
    assert len(blobs.reads) < 10
