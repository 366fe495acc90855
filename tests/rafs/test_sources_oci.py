"""Container images as sources: which one is meant, and that it is what it says."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import BinaryIO

import pytest

from fixtures.hardtree import make_hard_tree
from fixtures.ocilayout import Layout, layer_of
from fixtures.snapshots import of_directory, of_image
from rafs import BadSource
from rafs.builder import build
from rafs.packer import Packer
from rafs.sources.documents import Descriptor, Platform
from rafs.sources.oci import OciSource
from rafs.sources.source import Harvest
from rafs.targets import DirectoryTarget

_AMD = {"architecture": "amd64", "os": "linux"}
_ARM = {"architecture": "arm", "os": "linux", "variant": "v7"}
_LAZY = {**_AMD, "os.features": ["nydus.remoteimage.v1"]}


def one_file(name: str) -> bytes:
    return layer_of([(tarfile.TarInfo(name), name.encode() * 100)])


def names(folder: Path, tag: str | None = None, platform: str = "linux/amd64") -> set[bytes]:
    """Build the image and return the names in its root."""
    source = OciSource.layout(folder, tag, Platform.parse(platform))
    image = folder.parent / "image"
    build(source, DirectoryTarget(image))
    return set(of_image(image)) - {b""}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def test_real_layers_of_a_hard_tree_give_the_tree(layout: Layout, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    make_hard_tree(tree, linked_fifo=False)
    archive = tmp_path / "layer.tar"
    how = ("--format=pax", "--xattrs", "--xattrs-include=*", "-C", str(tree), ".")
    subprocess.run(["tar", "-cf", archive, *how], check=True)
    hidden = layer_of([(tarfile.TarInfo("data/random-1"), b"not this")])
    layout.tag(layout.manifest([hidden, one_file("gone"), archive.read_bytes()]), None)
    layers_above = [one_file("more"), layer_of([(tarfile.TarInfo(".wh.gone"), b"")])]
    assert names(layout.folder) > {b"gone", b"data"}
    manifest = layout.manifest([hidden, one_file("gone"), archive.read_bytes(), *layers_above])
    layout.tag(manifest, "above")
    assert names(layout.folder, "above") - set(of_directory(tree)) == {b"more"}
    seen = of_image(tmp_path / "image")
    assert {path: what for path, what in seen.items() if path != b"more"} == of_directory(tree)


def test_a_tag_names_one_of_several_images(layout: Layout) -> None:
    layout.tag(layout.manifest([one_file("a")]), "one")
    layout.tag(layout.manifest([one_file("b")]), "two")
    assert names(layout.folder, "two") == {b"b"}
    for tag in (None, "three"):
        with pytest.raises(BadSource, match="one, two"):
            names(layout.folder, tag)


@pytest.mark.parametrize(
    ("platform", "expected"),
    [("linux/amd64", b"amd"), ("linux/arm/v7", b"arm"), ("linux/arm", b"arm")],
)
def test_the_platform_chooses_and_what_is_lazy_already_is_passed_over(
    layout: Layout, platform: str, expected: bytes
) -> None:
    manifests = [
        layout.manifest([one_file("lazy")], platform=_LAZY),
        layout.manifest([one_file("amd")], platform=_AMD),
        layout.manifest([one_file("arm")], platform=_ARM),
    ]
    layout.tag(layout.index([layout.index(manifests, platform=_AMD)]), None)
    layout.tag(layout.index(manifests), "flat")
    assert names(layout.folder, "flat", platform) == {expected}


@pytest.mark.parametrize("platform", ["linux/s390x", "windows/amd64", "linux/arm/v6"])
def test_a_platform_that_is_not_there_is_refused_with_those_that_are(
    layout: Layout, platform: str
) -> None:
    manifests = [layout.manifest([one_file("a")], platform=kind) for kind in (_AMD, _ARM)]
    layout.tag(layout.index(manifests), None)
    with pytest.raises(BadSource, match="linux/amd64, linux/arm/v7"):
        names(layout.folder, None, platform)


def test_a_lazy_image_is_no_source(layout: Layout) -> None:
    layout.tag(layout.index([layout.manifest([one_file("a")], platform=_LAZY)]), None)
    with pytest.raises(BadSource, match="already"):
        names(layout.folder)


def test_the_config_is_carried_over(layout: Layout, tmp_path: Path) -> None:
    config = {**_AMD, "config": {"Entrypoint": ["/run"], "Env": ["A=ü"]}, "history": [{}]}
    layout.tag(layout.manifest([one_file("a")], config), None)
    names(layout.folder)
    assert json.loads((tmp_path / "image" / "image.json").read_bytes())["config"] == config


@pytest.mark.parametrize("what", ["layer", "config", "manifest"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "gone"])
def test_content_that_does_not_fit_its_digest_is_refused(
    layout: Layout, what: str, damage: str
) -> None:
    layer = one_file("a" * 99)
    manifest = layout.manifest([layer])
    layout.tag(manifest, None)
    digests = {
        "manifest": str(manifest["digest"]),
        "config": json.loads(blob(layout, manifest["digest"]).read_bytes())["config"]["digest"],
        "layer": json.loads(blob(layout, manifest["digest"]).read_bytes())["layers"][0]["digest"],
    }
    path = blob(layout, digests[what])
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        flipped = bytes([*data[:-1], data[-1] ^ 1])
        path.write_bytes({"flipped": flipped, "cut": data[:-1], "longer": data + b"\n"}[damage])
    with pytest.raises(BadSource, match=digests[what]):
        names(layout.folder)


def blob(layout: Layout, digest: object) -> Path:
    return layout.folder / "blobs" / "sha256" / str(digest).removeprefix("sha256:")


@pytest.mark.parametrize(
    "layers",
    [
        [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:x", "size": 1}],
        [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "a", "size": "1"}],
        [{"mediaType": "text/plain", "digest": "sha256:" + "0" * 64, "size": 1}],
        [{"mediaType": "x.layer.v1.tar+encrypted", "digest": "sha256:" + "0" * 64, "size": 1}],
        [{"mediaType": "x.layer.nydus.blob.v1", "digest": "sha256:" + "0" * 64, "size": 1}],
        "no list",
    ],
)
def test_manifests_that_cannot_be_right_are_refused(layout: Layout, layers: object) -> None:
    config = layout.put_json({}, "application/vnd.oci.image.config.v1+json")
    value = {"schemaVersion": 2, "config": config, "layers": layers}
    layout.tag(layout.put_json(value, "application/vnd.oci.image.manifest.v1+json"), None)
    with pytest.raises(BadSource):
        names(layout.folder)


def test_what_is_no_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match=r"index\.json"):
        names(tmp_path / "nothing")


class Memory:
    """Content in memory; a name for it is its place in a list."""

    def __init__(self, layout: Layout) -> None:
        self.folder = layout.folder / "blobs" / "sha256"
        self.opened: list[str] = []

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """Return the bytes as a file that comes in small parts."""
        self.opened.append(descriptor.digest)
        return Dribble((self.folder / descriptor.checked.hex).read_bytes())


class Dribble(io.BytesIO):
    """A file of which a read returns less than was asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most 1,000 bytes."""
        return super().read(min(size or 0, 1000))


def test_any_store_of_content_is_a_source_and_each_blob_is_read_once(
    layout: Layout, tmp_path: Path
) -> None:
    big = layer_of([(tarfile.TarInfo("big"), os.urandom(50_000))])
    manifest = layout.manifest([one_file("a"), big])
    store = Memory(layout)
    image = Descriptor(str(manifest["mediaType"]), str(manifest["digest"]), 10**6)
    with pytest.raises(BadSource, match="does not match"):
        build(OciSource(store, image), DirectoryTarget(tmp_path / "image"))
    size = blob(layout, image.digest).stat().st_size
    store.opened.clear()
    fitting = Descriptor(image.media_type, image.digest, size)
    build(OciSource(store, fitting), DirectoryTarget(tmp_path / "image"))
    assert len(set(store.opened)) == len(store.opened) == 4
    assert set(of_image(tmp_path / "image")) == {b"", b"a", b"big"}


class Failing(OciSource):
    """A source that fails in the middle of a layer."""

    def read(self, packer: Packer) -> Harvest:
        """Fail when half is read."""
        super().read(packer)
        raise BadSource("enough")


def test_a_failed_build_leaves_nothing(layout: Layout, tmp_path: Path) -> None:
    manifest = layout.manifest([one_file("a")])
    size = blob(layout, manifest["digest"]).stat().st_size
    image = Descriptor(str(manifest["mediaType"]), str(manifest["digest"]), size)
    with pytest.raises(BadSource, match="enough"):
        build(Failing(Memory(layout), image), DirectoryTarget(tmp_path / "image"))
    assert not (tmp_path / "image").exists()
