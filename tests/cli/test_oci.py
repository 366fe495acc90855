from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.names import split_layout
from cli.oci import unpack_bootstrap
from fixtures.command import Naiad
from fixtures.lazylayout import write_lazy_layout
from fixtures.ocilayout import Layout
from fixtures.registry import PASSWORD, USER, RealRegistry, running_registry
from rafs import BadImage


@pytest.fixture
def layout(image: Path, tmp_path: Path) -> Path:
    write_lazy_layout(image, tmp_path / "layout", "v1")
    return tmp_path / "layout"


def test_an_image_in_a_layout_is_the_one_it_was_made_from(
    naiad: Naiad, image: Path, layout: Path
) -> None:
    expected = naiad.json("inspect", "--json", image)
    assert naiad.json("inspect", "--json", f"oci:{layout}") == expected
    assert naiad.json("inspect", "--json", f"oci:{layout}:v1") == expected
    assert naiad.run("check", "--data", f"oci:{layout}:v1").stdout == "no fault found\n"


def test_a_tag_that_is_not_there_is_one_line(naiad: Naiad, layout: Path) -> None:
    done = naiad.run("inspect", f"oci:{layout}:v2", ok=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_a_damaged_layer_is_refused(naiad: Naiad, layout: Path) -> None:
    manifest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    said = json.loads((layout / "blobs/sha256" / manifest.partition(":")[2]).read_text())
    layer = layout / "blobs/sha256" / said["layers"][-1]["digest"].partition(":")[2]
    layer.write_bytes(layer.read_bytes()[:-1] + b"\x55")
    done = naiad.run("inspect", f"oci:{layout}", ok=False)
    assert done.returncode == 1
    assert "damaged" in done.stderr


LAYOUTS = [
    ("oci:dir", Path("dir"), None),
    ("oci:dir:tag", Path("dir"), "tag"),
    ("oci:/a/b:v1.2", Path("/a/b"), "v1.2"),
    ("oci:/a:b/c", Path("/a:b/c"), None),
]


@pytest.mark.parametrize(("text", "folder", "tag"), LAYOUTS)
def test_a_layout_is_named_by_folder_and_tag(text: str, folder: Path, tag: str | None) -> None:
    assert split_layout(text) == (folder, tag)


def _tar(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("name", ["image/image.boot", "./image/image.boot", "image.boot"])
def test_a_bootstrap_is_taken_out_of_its_layer(name: str) -> None:
    out = io.BytesIO()
    unpack_bootstrap(io.BytesIO(gzip.compress(_tar(("other", b"x"), (name, b"boot")))), out)
    assert out.getvalue() == b"boot"


HOSTILE = [
    b"",
    b"no tar",
    _tar(("other", b"x")),
    gzip.compress(_tar(("image/image.boot", b"boot")))[:40],
    _tar(("image/image.boot", b"boot" * 1000))[:600],
    _tar(*[(f"file{number}", b"") for number in range(50)], ("image/image.boot", b"boot")),
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_a_layer_without_a_whole_bootstrap_is_refused(data: bytes) -> None:
    with pytest.raises(BadImage, match="bootstrap layer"):
        unpack_bootstrap(io.BytesIO(data), io.BytesIO())


@pytest.fixture(scope="module", params=[False, True], ids=["open", "password"])
def registry(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealRegistry]:
    folder = tmp_path_factory.mktemp("registry")
    with running_registry(folder, password=request.param) as running:
        yield running


def _push(registry: RealRegistry, layout: Path, name: str) -> None:
    words = ["skopeo", "copy", "--dest-tls-verify=false", f"--dest-creds={USER}:{PASSWORD}"]
    target = f"docker://{registry.host}/{name}"
    done = subprocess.run([*words, f"oci:{layout}:v1", target], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.real
def test_an_image_in_a_registry_is_the_one_that_was_pushed(
    tmp_path: Path, image: Path, layout: Path, registry: RealRegistry
) -> None:
    told = {"NAIAD_REGISTRY_USER": USER, "NAIAD_REGISTRY_PASSWORD": PASSWORD}
    naiad = Naiad(tmp_path, **told)
    _push(registry, layout, "app:v1")
    name = f"{registry.host}/app:v1"
    expected = naiad.json("inspect", "--json", image)
    assert naiad.json("inspect", "--json", "--plain-http", name) == expected
    assert naiad.run("check", "--data", "--plain-http", name).stdout == "no fault found\n"


@pytest.mark.real
@pytest.mark.kernel
def test_an_image_in_a_registry_is_mounted(
    naiad: Naiad, tree: Path, layout: Path, registry: RealRegistry
) -> None:
    naiad.environment |= {"NAIAD_REGISTRY_USER": USER, "NAIAD_REGISTRY_PASSWORD": PASSWORD}
    _push(registry, layout, "app:v1")
    mount = naiad.mount(f"{registry.host}/app:v1", "--plain-http")
    assert (mount / "data").read_bytes() == (tree / "data").read_bytes()


@pytest.mark.real
def test_a_manifest_may_be_pinned(naiad: Naiad, layout: Path, registry: RealRegistry) -> None:
    naiad.environment |= {"NAIAD_REGISTRY_USER": USER, "NAIAD_REGISTRY_PASSWORD": PASSWORD}
    _push(registry, layout, "app:v1")
    pinned = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    naiad.run("inspect", "--plain-http", f"{registry.host}/app@{pinned}")
    done = naiad.run("inspect", "--plain-http", f"{registry.host}/app@sha256:{'0' * 64}", ok=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def _content(naiad: Naiad, *image: str | Path) -> tuple[object, ...]:
    said = naiad.json("inspect", "--json", *image)
    assert isinstance(said, dict)
    assert naiad.run("check", "--data", *image).stdout == "no fault found\n"
    return tuple(said[name] for name in ("bootstrap", "inodes", "size", "chunks"))


def test_an_image_is_built_into_a_layout(
    naiad: Naiad, tree: Path, image: Path, tmp_path: Path
) -> None:
    target = f"oci:{tmp_path / 'built'}:v1"
    naiad.run("build", tree, target)
    assert _content(naiad, target) == _content(naiad, image)


@pytest.mark.real
def test_an_image_is_built_into_a_registry(
    naiad: Naiad, tree: Path, image: Path, registry: RealRegistry
) -> None:
    naiad.environment |= {"NAIAD_REGISTRY_USER": USER, "NAIAD_REGISTRY_PASSWORD": PASSWORD}
    name = f"{registry.host}/built/app:v1"
    naiad.run("build", "--plain-http", tree, name)
    assert _content(naiad, "--plain-http", name) == _content(naiad, image)
    (tree / "new").write_bytes(b"something new")
    naiad.run("build", "--plain-http", "--chunk-dict", name, tree, f"{registry.host}/built/app:v2")
    naiad.run("check", "--data", "--plain-http", f"{registry.host}/built/app:v2")


@pytest.mark.real
def test_an_ordinary_image_of_a_registry_is_built_into_a_lazy_one(
    naiad: Naiad, tmp_path: Path, registry: RealRegistry
) -> None:
    naiad.environment |= {"NAIAD_REGISTRY_USER": USER, "NAIAD_REGISTRY_PASSWORD": PASSWORD}
    ordinary = Layout(tmp_path / "ordinary")
    lower, upper = _tar(("etc/motd", b"lower"), ("gone", b"x")), _tar((".wh.gone", b""))
    ordinary.tag(ordinary.manifest([lower, upper]), "v1")
    _push(registry, ordinary.folder, "ordinary:v1")
    source, target = f"{registry.host}/ordinary:v1", f"{registry.host}/ordinary:lazy"
    refused = naiad.run("inspect", "--plain-http", source, ok=False)
    assert "an ordinary container image" in refused.stderr
    naiad.run("build", "--plain-http", source, target)
    found = naiad.json("inspect", "--json", "--plain-http", target)
    assert isinstance(found, dict)
    assert found["inodes"] == {"directory": 2, "file": 1}
