"""Images of every version that naiad ever wrote: they must decode for ever."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from fixtures.reading import Shown, shown
from rafs import Bootstrap, toc

_GOLDEN = Path(__file__).parents[2] / "fixtures" / "golden"
_IMAGES = sorted(path.parent for path in _GOLDEN.glob("*/expected.json"))


def _plain(one: Shown) -> dict[str, object]:
    """Return what JSON can hold of *one*."""
    return {
        "mode": one.mode,
        "nlink": one.nlink,
        "owner": list(one.owner),
        "rdev": one.rdev,
        "size": one.size,
        "mtime": list(one.mtime),
        "xattrs": {name.decode(): value.hex() for name, value in sorted(one.xattrs.items())},
        "target": one.target.decode(),
        "data": one.data.decode("latin-1"),
    }


@pytest.mark.parametrize("folder", _IMAGES, ids=lambda folder: folder.name)
def test_a_golden_image_reads_as_it_did(folder: Path) -> None:
    image = Bootstrap.open(folder / "image.boot")
    decoded = {
        blob.id: b"".join(
            (folder / "blobs" / blob.id).read_bytes()[chunk.stored_offset : chunk.stored_stop]
            + bytes(-chunk.size % 4096)
            for chunk in image.chunks(index)
        )
        for index, blob in enumerate(image.blobs)
    }
    found = {path.decode(): _plain(one) for path, one in shown(image, decoded).items()}
    expected = json.loads((folder / "expected.json").read_text())
    assert found == expected["tree"]
    assert [blob.id for blob in image.blobs] == expected["blobs"]
    image.close()


def _cut(data: bytes, start: int, stop: int) -> bytes:
    return data[start:stop]


@pytest.mark.parametrize("folder", _IMAGES, ids=lambda folder: folder.name)
def test_a_golden_blobs_contents_read_as_they_did(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    for blob_id in expected["blobs"]:
        data = (folder / "blobs" / blob_id).read_bytes()
        names = [entry.name for entry in toc.contents(len(data), functools.partial(_cut, data))]
        assert names == ["image.blob", "blob.meta", "blob.meta.header", "blob.digest"]


def test_there_are_golden_images() -> None:
    assert [folder.name for folder in _IMAGES] == ["v6"]
