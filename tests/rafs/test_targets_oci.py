"""Images as OCI content: what Nydus clients look for is there, and everything fits its digest."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chunkstore import Digest
from fixtures.ocilayout import Layout, layer_of
from fixtures.snapshots import of_directory, of_image
from rafs import BadSource, Bootstrap
from rafs.builder import BuildOptions, BuildResult, build
from rafs.sources.directory import DirectorySource
from rafs.sources.documents import Descriptor, Platform
from rafs.sources.oci import OciSource
from rafs.targets import OciTarget, layout_target

_AMD = Platform("amd64", "linux")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(5):
        (tree / f"file-{number}").write_bytes(b"naiad " * 5000 * number)
    return tree


class Image:
    """An image of an OCI layout, every piece of it checked."""

    def __init__(self, folder: Path, tag: str | None) -> None:
        self.folder = folder
        images = json.loads((folder / "index.json").read_bytes())["manifests"]
        named = [image for image in images if image.get("annotations", {}) == _named(tag)]
        assert len(named) == 1
        self.index = self.json(named[0])
        (described,) = self.index["manifests"]
        self.platform = described["platform"]
        self.manifest = self.json(described)
        self.config = self.json(self.manifest["config"])
        self.layers = self.manifest["layers"]

    def data(self, descriptor: dict[str, Any]) -> bytes:
        """Return what *descriptor* describes."""
        algorithm, _, digest = descriptor["digest"].partition(":")
        data = (self.folder / "blobs" / algorithm / digest).read_bytes()
        assert len(data) == descriptor["size"]
        assert hashlib.sha256(data).hexdigest() == digest
        return bytes(data)

    def json(self, descriptor: dict[str, Any]) -> Any:
        """Return the document that *descriptor* describes."""
        value = json.loads(self.data(descriptor))
        if "config" not in descriptor["mediaType"]:
            assert value["mediaType"] == descriptor["mediaType"]
            assert value["schemaVersion"] == 2
        return value

    def save(self, folder: Path) -> None:
        """Write the image as a directory."""
        layer = gzip.decompress(self.data(self.layers[-1]))
        assert (
            self.config["rootfs"]["diff_ids"][-1] == f"sha256:{hashlib.sha256(layer).hexdigest()}"
        )
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            names = [info.name for info in tar.getmembers()]
            assert names == ["image", "image/image.boot"]
            boot = tar.extractfile("image/image.boot")
            assert boot is not None
            (folder / "blobs").mkdir(parents=True)
            (folder / "image.boot").write_bytes(boot.read())
        for layer, diff_id in zip(
            self.layers[:-1], self.config["rootfs"]["diff_ids"], strict=False
        ):
            assert diff_id == layer["digest"]
            (folder / "blobs" / diff_id.removeprefix("sha256:")).write_bytes(self.data(layer))


def _named(tag: str | None) -> dict[str, str]:
    return {} if tag is None else {"org.opencontainers.image.ref.name": tag}


def built(tree: Path, folder: Path, tag: str | None = None, **how: Any) -> BuildResult:
    return build(DirectorySource(tree), layout_target(folder, tag, _AMD), BuildOptions(**how))


def test_the_pieces_are_what_nydus_clients_look_for(tree: Path, tmp_path: Path) -> None:
    result = built(tree, tmp_path / "layout", "new")
    image = Image(tmp_path / "layout", "new")
    assert image.platform == {
        "architecture": "amd64",
        "os": "linux",
    }
    blob, bootstrap = image.layers
    assert blob["mediaType"] == "application/vnd.oci.image.layer.nydus.blob.v1"
    assert blob["annotations"] == {"containerd.io/snapshot/nydus-blob": "true"}
    assert blob["digest"] == f"sha256:{result.blob}"
    assert bootstrap["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert bootstrap["annotations"] == {
        "containerd.io/snapshot/nydus-bootstrap": "true",
        "containerd.io/snapshot/nydus-fs-version": "6",
    }
    assert image.config["os"] == "linux"
    assert sum("empty_layer" not in entry for entry in image.config["history"]) == 2
    image.save(tmp_path / "saved")
    assert of_image(tmp_path / "saved") == of_directory(tree)
    assert result.bootstrap.matches((tmp_path / "saved" / "image.boot").read_bytes())
    assert not list((tmp_path / "layout").glob(".naiad*"))
    mark = json.loads((tmp_path / "layout" / "oci-layout").read_bytes())
    assert mark == {"imageLayoutVersion": "1.0.0"}


def test_the_same_tree_gives_the_same_image(tree: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        built(tree, tmp_path / name)
    a, b = Image(tmp_path / "a", None), Image(tmp_path / "b", None)
    assert a.index == b.index


def test_a_tag_moves_and_others_stay(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "layout"
    for tag in ("one", "two", None):
        built(tree, folder, tag)
    (tree / "more").write_bytes(b"more")
    built(tree, folder, "two")
    built(tree, folder)
    assert Image(folder, "one").manifest != Image(folder, "two").manifest
    assert Image(folder, None).manifest == Image(folder, "two").manifest


def test_a_container_image_keeps_its_config(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "source")
    config = {
        "architecture": "arm",
        "variant": "v7",
        "os": "linux",
        "created": "2001-02-03T04:05:06Z",
        "config": {"Cmd": ["/bin/sh"], "Labels": {"a": "b"}},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]},
        "history": [{"created_by": "somebody"}, {"created_by": "else", "empty_layer": True}],
        "x-unknown": [1],
    }
    layers = [layer_of([(tarfile.TarInfo("a"), b"x")])]
    layout.tag(layout.manifest(layers, config), None)
    target = layout_target(tmp_path / "target", None)
    build(OciSource.layout(tmp_path / "source", None), target)
    image = Image(tmp_path / "target", None)
    kept = {key: value for key, value in image.config.items() if key not in ("rootfs", "history")}
    assert kept == {key: config[key] for key in kept}
    assert set(kept) == set(config) - {"rootfs", "history"}
    assert image.platform["variant"] == "v7"
    assert [entry.get("empty_layer", False) for entry in image.config["history"]] == [
        True,
        True,
        False,
        False,
    ]


def test_blobs_that_a_dict_lends_are_layers_too(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "layout"
    old = built(tree, folder, "old")
    (tree / "more").write_bytes(b"only here" * 1000)
    Image(folder, "old").save(tmp_path / "old")
    with closing(Bootstrap.open(tmp_path / "old" / "image.boot")) as lender:
        new = built(tree, folder, "new", dicts=[lender])
        layers = Image(folder, "new").layers
        blobs = {layer["digest"] for layer in layers[:-1]}
        assert blobs == {f"sha256:{old.blob}", f"sha256:{new.blob}"}
        with pytest.raises(BadSource, match="not at the target"):
            built(tree, tmp_path / "elsewhere", dicts=[lender])
    Image(folder, "new").save(tmp_path / "new")
    assert of_image(tmp_path / "new") == of_directory(tree)
    assert not (tmp_path / "elsewhere" / "index.json").exists()


@pytest.mark.parametrize("index", [b"{}", b"not json", b"[]", b'{"manifests": [1]}'])
def test_a_damaged_index_is_not_replaced(tree: Path, tmp_path: Path, index: bytes) -> None:
    folder = tmp_path / "layout"
    folder.mkdir()
    (folder / "index.json").write_bytes(index)
    with pytest.raises(BadSource, match=r"index\.json"):
        built(tree, folder)
    assert (folder / "index.json").read_bytes() == index


class MemoryShelf:
    """A shelf in memory that notes the order of things."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.named: Descriptor | None = None

    def size(self, digest: Digest) -> int | None:
        """Return the size of what was put."""
        data = self.content.get(str(digest))
        return None if data is None else len(data)

    def put(self, descriptor: Descriptor, path: Path) -> None:
        """Keep the content, which must refer only to what is here."""
        assert self.named is None
        data = path.read_bytes()
        if descriptor.media_type.endswith("json") and "config" not in descriptor.media_type:
            value = json.loads(data)
            for below in [*value.get("manifests", []), *value.get("layers", [])]:
                assert below["digest"] in self.content
        self.content[descriptor.digest] = data

    def name(self, descriptor: Descriptor) -> None:
        """Note what is named."""
        self.named = descriptor


def test_any_shelf_gets_the_pieces_in_an_order_that_holds(tree: Path, tmp_path: Path) -> None:
    shelf = MemoryShelf()
    build(DirectorySource(tree), OciTarget(shelf, tmp_path / "work", _AMD))
    assert shelf.named is not None
    assert len(shelf.content) == 5
    assert list(shelf.content)[-1] == shelf.named.digest
    shutil.rmtree(tmp_path / "work")
