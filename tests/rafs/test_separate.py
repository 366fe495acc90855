"""Images of unread files: what each is read from, however many there are and wherever they lie."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence

import pytest

from chunkstore.checksum import Checksum, Kind
from chunkstore.whole import STEP
from rafs import BadImage, BadSource, Bootstrap
from rafs.separate import separate
from rafs.sources.archive import Archive
from rafs.sources.seeking import WINDOW, Seeking
from rafs.unhashed import LAYER, Unread, encode, files, nids, wholes
from rafs.v6_tables import MAX_BLOBS


def checksum(of: object) -> Checksum:
    return Checksum(Kind.SHA256, hashlib.sha256(str(of).encode()).digest())


def image_of(listed: Sequence[Unread]) -> Bootstrap:
    out = io.BytesIO()
    encode("somewhere", listed, out)
    return separate(Bootstrap.decode(out.getvalue()))


def sources(image: Bootstrap) -> dict[str, list[tuple[str, int, int]]]:
    """Return per file the ranges that it is read from: blob and where, in that."""
    found = {}
    for path, nid in files(image):
        extents = image.extents(nid, 0, 1 << 40)
        found[path] = [
            (extent.blob.id, extent.chunk.offset + extent.start, extent.size)
            for extent in extents
            if extent.blob and extent.chunk
        ]
    return found


def test_each_of_many_large_files_is_a_blob_by_its_checksum() -> None:
    count = MAX_BLOBS + 50
    listed = [Unread(f"{n:04}", STEP + n + 1, checksum(n)) for n in range(count)]
    listed += [Unread("same", STEP + 1, checksum(0)), Unread("small", 9, checksum("small"))]
    image = image_of(listed)
    assert len(image.blobs) == count + 1, "and one for the small ones"
    seen = sources(image)
    for n in range(count):
        name = checksum(n).raw.hex()
        assert seen[f"{n:04}"] == [(name, 0, STEP), (name, STEP, n + 1)]
    assert seen["same"] == seen["0000"]
    assert {whole.checksum for of in wholes(image).values() for whole in of} == {
        file.checksum for file in listed
    }
    ids = [blob.id for blob in image.blobs]
    last = ids.index(checksum(count - 1).raw.hex())
    chunks = list(image.chunks(last))
    assert [chunk.size for chunk in chunks] == [STEP, count]
    assert image.chunks(last).get(1) == chunks[1]
    assert image.chunks(last).get(2) is None


def test_an_image_of_few_files_stays_as_it_is() -> None:
    out = io.BytesIO()
    encode("somewhere", [Unread("a", 3 * STEP, checksum("a"))], out)
    image = Bootstrap.decode(out.getvalue())
    assert separate(image) is image


def test_files_in_a_tar_are_read_where_they_lie_in_it() -> None:
    tar, size = checksum("tar"), 5 * STEP
    listed = [
        Unread("a", 2 * STEP, tar, (size, 512)),
        Unread("b", 1000, tar, (size, 2 * STEP + 1536)),
        Unread("c", 0, tar, (size, 3 * STEP)),
        Unread("d/raw", STEP + 1, checksum("raw")),
    ]
    image = image_of(listed)
    name, raw = tar.raw.hex(), checksum("raw").raw.hex()
    assert sources(image) == {
        "a": [(name, 512, STEP - 512), (name, STEP, STEP), (name, 2 * STEP, 512)],
        "b": [(name, 2 * STEP + 1536, 1000)],
        "c": [],
        "d/raw": [(raw, 0, STEP), (raw, STEP, 1)],
    }
    assert {blob.id: blob.size for blob in image.blobs} == {raw: STEP + 1, name: size}
    ((whole,), _) = sorted(wholes(image).values(), key=lambda of: -of[0].size)
    assert (whole.size, whole.count, whole.checksum) == (size, 5, tar)
    paths = {nid: path for path, nid in files(image)}
    assert {paths[nid] for nid in nids(image, tar)} == {"a", "b", "c"}


@pytest.mark.parametrize("within", [(10, 5), (1 << 50, 0), (STEP, -1)])
def test_a_place_that_is_none_is_a_bad_image(within: tuple[int, int]) -> None:
    with pytest.raises(BadImage, match="no place for 6 bytes"):
        image_of([Unread("a", 6, checksum("a"), within)])


def test_a_tar_that_is_looked_through_is_not_read_whole() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(3):
            info = tarfile.TarInfo(f"file{number}")
            info.size = 4 << 20
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    data, asked = out.getvalue(), list[int]()

    def read(start: int, stop: int) -> bytes:
        asked.append(stop - start)
        return data[start:stop]

    archive = Archive(Seeking(read, len(data), "a tar"))
    places = [(member.name, archive.stream.position) for member in archive]
    step = (4 << 20) + 512
    assert places == [(b"file%d" % number, number * step + 512) for number in range(3)]
    assert len(asked) <= 4
    assert max(asked) <= WINDOW
    cut = Archive(Seeking(read, 5 << 20, "a tar"))
    with pytest.raises(BadSource, match="in the middle of a file"):
        list(cut)
    assert LAYER == b"user.naiad.layer"
