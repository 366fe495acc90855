from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.extents import DecodedFiles
from fixtures.gallery import gallery
from fusefs.blobfiles import BlobFiles
from fusefs.vfs import ROOT, Image, Vfs
from rafs import Bootstrap, NoEntry, WrongKind


class Gallery:
    """Blob files of the gallery, which has two blobs, and what is in them."""

    def __init__(self, folder: Path) -> None:
        self.ids = gallery().save(folder)
        self.decoded = [(folder / "decoded" / name).read_bytes() for name in self.ids]
        self.files = BlobFiles(Bootstrap.open(folder / "image.boot"))
        self.vfs = Vfs(Image("image", self.files, DecodedFiles(folder / "decoded")))

    def node(self, number: int) -> int:
        node = self.vfs.lookup(ROOT, b"%d" % number)
        assert node is not None
        return node


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery(tmp_path_factory.mktemp("blobs"))


def test_each_blob_is_a_file_of_whole_blocks(shown: Gallery) -> None:
    listed = list(shown.vfs.listing(ROOT, 0))
    assert [name for name, _, _ in listed] == [b"0", b"1"]
    assert shown.files.names == ["0", "1"]
    assert list(shown.vfs.listing(ROOT, 1)) == listed[1:]
    for (_, node, _), decoded in zip(listed, shown.decoded, strict=True):
        attributes = shown.vfs.attributes(node)
        assert attributes[0] == stat.S_IFREG | 0o400
        assert attributes[5] == -(-len(decoded) // 4096) * 4096
    assert shown.vfs.attributes(ROOT)[0] == stat.S_IFDIR | 0o700
    assert shown.vfs.parent(ROOT) == ROOT


@settings(max_examples=100)
@given(number=st.integers(0, 1), start=st.integers(0, 60_000), size=st.integers(0, 40_000))
def test_any_range_reads_as_the_decoded_blob_does(
    shown: Gallery, number: int, start: int, size: int
) -> None:
    whole = shown.decoded[number]
    whole += bytes(-len(whole) % 4096)
    found = shown.vfs.look(shown.node(number), start, size)
    assert found is not None
    assert bytes(found) == whole[start : start + size]


@pytest.mark.parametrize("name", [b"2", b"-1", b"00", b"01", b"\xb2", b"0" * 300, b"", b"x"])
def test_other_names_are_absent(shown: Gallery, name: bytes) -> None:
    assert shown.vfs.lookup(ROOT, name) is None


def test_what_does_not_fit_the_kind_is_refused(shown: Gallery) -> None:
    with pytest.raises(WrongKind):
        shown.vfs.look(ROOT, 0, 10)
    with pytest.raises(WrongKind):
        shown.vfs.lookup(shown.node(0), b"0")
    with pytest.raises(WrongKind):
        shown.vfs.target(shown.node(0))
    with pytest.raises(NoEntry):
        shown.vfs.attributes(shown.node(1) + 1)


def test_what_other_images_have_between_the_chunks_is_not_seen(tmp_path: Path) -> None:
    sketch = gallery()
    sketch.save(tmp_path)
    bootstrap = Bootstrap.open(tmp_path / "image.boot")
    padding = [
        extent
        for extent in BlobFiles(bootstrap).extents(1, 0, 1 << 20)
        if extent.chunk is None and extent.blob is None
    ]
    assert padding
    assert all(0 < extent.size < 4096 for extent in padding)
