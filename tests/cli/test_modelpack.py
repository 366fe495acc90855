"""Model artifacts between naiad, a real registry and ORAS: the same files, whoever packed them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.mounting import until
from fixtures.ocilayout import Layout
from fixtures.registry import RealRegistry, is_installed, running_registry
from fixtures.snapshots import of_image
from rafs.sources.modelpack import ARTIFACT_TYPE, CONFIG_TYPE

DRAW = random.Random(4)
FILES = {
    "README.md": b"# a model\n",
    "config.json": b'{"model_type": "none"}',
    "model-1.safetensors": DRAW.randbytes(3_500_000),
    "nested/tokenizer.json": DRAW.randbytes(40_000),
    "nested/empty": b"",
}
WEIGHT = "application/vnd.cncf.model.weight.v1"

real = pytest.mark.skipif(not is_installed(), reason="there is no docker-registry")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Make a folder with a model's files."""
    for path, data in FILES.items():
        file = tmp_path / "model" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return tmp_path / "model"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RealRegistry]:
    with running_registry(tmp_path / "registry") as running:
        yield running


def oras(folder: Path, program: str) -> None:
    """Run a program with ORAS' client in *folder*."""
    head = "from oras.client import OrasClient\nclient = OrasClient(insecure=True)\n"
    command = [sys.executable, "-c", head + program]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def pushed(model: Path, registry: RealRegistry) -> str:
    """Push the model as people do by hand; return its reference."""
    reference = f"{registry.host}/models/tiny:v1"
    (model.parent / "config").write_text("{}")
    files = [f"{path}:{WEIGHT}.raw" for path in FILES if FILES[path]]
    manifest = f"{model.parent}/config:{CONFIG_TYPE}"
    oras(
        model,
        f"client.push(target={reference!r}, files={files!r}, manifest_config={manifest!r}, "
        "disable_path_validation=True)",
    )
    return reference


def content(folder: Path) -> dict[str, bytes]:
    """Return the files below *folder*, by path."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def files_of(image: Path) -> dict[str, bytes]:
    """Return the files of an image, by path."""
    found = of_image(image)
    return {path.decode(): one.data for path, one in found.items() if one.mode & 0o100000}


FLAT = {path.rpartition("/")[2]: data for path, data in FILES.items() if data}
"""What ORAS for Python makes of it: it calls a file by its last name."""


@pytest.mark.real
@pytest.mark.kernel
@real
def test_what_oras_pushed_is_built_and_mounted(
    naiad: Naiad, model: Path, registry: RealRegistry, tmp_path: Path
) -> None:
    reference = pushed(model, registry)
    naiad.run("build", "--plain-http", reference, tmp_path / "image")
    assert files_of(tmp_path / "image") == FLAT
    mount = naiad.mount(reference, "--plain-http", "--prefetch", "none")
    with (mount / "model-1.safetensors").open("rb") as file:
        assert file.read(4096) == FILES["model-1.safetensors"][:4096]
    assert naiad.status(mount)["unverified"] == ["model-1.safetensors"]
    daemon = naiad.status(mount)["daemon"]
    assert isinstance(daemon, int)
    os.kill(daemon, signal.SIGKILL)
    assert content(mount) == FLAT
    until(lambda: naiad.status(mount)["unverified"] == [])
    assert naiad.status(mount)["driver"] == "fuse"


@pytest.mark.real
@real
def test_what_is_pushed_as_a_model_is_pulled_by_oras(
    naiad: Naiad, model: Path, registry: RealRegistry, tmp_path: Path
) -> None:
    (model / "link").symlink_to("config.json")
    reference = f"{registry.host}/models/ours:v1"
    said = naiad.run("build", "--plain-http", "--format", "modelpack", model, reference)
    assert said.stderr == "naiad: left out, a model has but files: link\n"
    oras(tmp_path, f"client.pull(target={reference!r}, outdir='pulled')")
    assert content(tmp_path / "pulled") == FILES
    naiad.run("build", "--plain-http", reference, tmp_path / "image")
    assert files_of(tmp_path / "image") == FILES
    done = naiad.run("inspect", "--plain-http", reference, ok=False)
    assert "its chunks have no digests" in done.stderr


@pytest.mark.kernel
def test_a_layout_holds_model_artifacts_too(naiad: Naiad, model: Path, tmp_path: Path) -> None:
    layout = f"oci:{tmp_path}/layout:v1"
    naiad.run("build", "--format", "modelpack", model, layout)
    index = json.loads((tmp_path / "layout" / "index.json").read_bytes())
    (entry,) = index["manifests"]
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    manifest = json.loads((blobs / entry["digest"].partition(":")[2]).read_bytes())
    assert manifest["artifactType"] == ARTIFACT_TYPE
    kinds = {layer["annotations"]["org.cncf.model.filepath"]: layer for layer in manifest["layers"]}
    assert {path: layer["mediaType"].split(".model.")[1] for path, layer in kinds.items()} == {
        "README.md": "doc.v1.raw",
        "config.json": "weight.config.v1.raw",
        "model-1.safetensors": "weight.v1.raw",
        "nested/empty": "weight.config.v1.raw",
        "nested/tokenizer.json": "weight.config.v1.raw",
    }
    assert content(naiad.mount(layout)) == FILES


def artifact(folder: Path, layers: list[dict[str, object]], layout: Layout) -> str:
    config = layout.put_json({}, CONFIG_TYPE)
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": ARTIFACT_TYPE,
        "config": config,
        "layers": layers,
    }
    kind = "application/vnd.oci.image.manifest.v1+json"
    layout.tag(layout.put_json(manifest, kind), "v1")
    return f"oci:{folder}:v1"


@pytest.mark.kernel
def test_files_in_a_plain_tar_are_read_where_they_lie(naiad: Naiad, tmp_path: Path) -> None:
    inside = {
        "weights/model.gguf": DRAW.randbytes(3_000_001),
        "small.txt": b"small",
        "weights/empty": b"",
        "n" * 120 + "/x.bin": DRAW.randbytes(70_000),
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as packed:
        packed.addfile(_directory("weights"))
        for path, data in inside.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o640
            packed.addfile(info, io.BytesIO(data))
    layout = Layout(tmp_path / "layout")
    raw = {"org.cncf.model.filepath": "config.json"}
    layers = [
        layout.put(archive.getvalue(), f"{WEIGHT}.tar"),
        layout.put(b"{}", "application/vnd.cncf.model.weight.config.v1.raw", annotations=raw),
    ]
    mount = naiad.mount(artifact(tmp_path / "layout", layers, layout), "--prefetch", "none")
    gguf = mount / "weights/model.gguf"
    with gguf.open("rb") as file:
        file.seek(1_500_000)
        assert file.read(100) == inside["weights/model.gguf"][1_500_000:1_500_100]
    tar = f"layer sha256:{hashlib.sha256(archive.getvalue()).hexdigest()}"
    assert naiad.status(mount)["unverified"] == [tar]
    assert content(mount) == inside | {"config.json": b"{}"}
    assert gguf.stat().st_mode & 0o777 == 0o640
    until(lambda: naiad.status(mount)["unverified"] == [])
    naiad.umount(mount)
    again = naiad.mount(f"oci:{tmp_path}/layout:v1")
    assert content(again) == inside | {"config.json": b"{}"}


def _directory(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


def test_compressed_tars_are_built_and_not_mounted(naiad: Naiad, tmp_path: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        info = tarfile.TarInfo("nested/.wh.name")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"data"))
    layout = Layout(tmp_path / "layout")
    raw = {"org.cncf.model.filepath": "weights.gguf"}
    facts = {"org.cncf.model.file.metadata+json": '{"mode": 384, "uid": 7, "gid": 8}'}
    layers = [
        layout.put(archive.getvalue(), "application/vnd.cncf.model.code.v1.tar+gzip"),
        layout.put(b"GGUF", f"{WEIGHT}.raw", annotations=raw | facts),
    ]
    source = artifact(tmp_path / "layout", layers, layout)
    naiad.run("build", source, tmp_path / "image")
    seen = of_image(tmp_path / "image")
    assert seen[b"nested/.wh.name"].data == b"data"
    assert seen[b"weights.gguf"].data == b"GGUF"
    assert (seen[b"weights.gguf"].mode, seen[b"weights.gguf"].owner) == (0o100600, (7, 8))
    (tmp_path / "mnt").mkdir()
    done = naiad.run("mount", source, tmp_path / "mnt", ok=False)
    assert "let naiad build make an image of it" in done.stderr


@pytest.mark.parametrize(
    ("media_type", "annotations", "why"),
    [
        (f"{WEIGHT}.raw", {}, "does not say what its file is called"),
        (f"{WEIGHT}.raw", {"org.cncf.model.filepath": "../x"}, "no path inside an image"),
        ("application/vnd.cncf.model.weight.v9.raw", {}, "cannot read"),
        (
            f"{WEIGHT}.raw",
            {"org.cncf.model.filepath": "x", "org.cncf.model.file.metadata+json": "[]"},
            "metadata",
        ),
    ],
)
def test_layers_that_cannot_be_are_one_line(
    naiad: Naiad, tmp_path: Path, media_type: str, annotations: dict[str, str], why: str
) -> None:
    layout = Layout(tmp_path / "layout")
    layers = [layout.put(b"data", media_type, annotations=annotations)]
    source = artifact(tmp_path / "layout", layers, layout)
    done = naiad.run("build", source, tmp_path / "image", ok=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert why in done.stderr


def test_a_model_artifact_is_not_a_directory(naiad: Naiad, model: Path, tmp_path: Path) -> None:
    done = naiad.run("build", "--format", "modelpack", model, tmp_path / "image", ok=False)
    assert done.returncode == 2
    assert "oci: or a registry" in done.stderr
