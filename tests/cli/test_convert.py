"""``naiad convert`` with a real registry."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from fixtures.command import Naiad
from fixtures.ocilayout import Layout
from fixtures.registry import RealRegistry, running_registry

pytestmark = pytest.mark.real

_LABELS = {"org.example.kept": "yes"}
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RealRegistry]:
    with running_registry(tmp_path / "registry") as made:
        yield made


def layer(tmp_path: Path, name: str) -> bytes:
    (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / name / "hello").write_text(name)
    command = ["tar", "-C", str(tmp_path / name), "-cf", "-", "hello"]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


def config(architecture: str) -> Mapping[str, object]:
    return {
        "architecture": architecture,
        "os": "linux",
        "config": {"Labels": _LABELS, "Cmd": ["/bin/hello"], "Env": ["A=b"]},
    }


def push(tmp_path: Path, registry: RealRegistry, name: str, *architectures: str) -> str:
    """Push an image for *architectures*: an index, or where there is one a manifest alone."""
    layout = Layout(tmp_path / "layout")
    made = [
        layout.manifest(
            [layer(tmp_path, one)], config(one), platform={"architecture": one, "os": "linux"}
        )
        for one in architectures
    ]
    layout.tag(layout.index(made) if len(made) > 1 else made[0], "latest")
    reference = f"{registry.host}/{name}"
    words = ["skopeo", "copy", "-q", "--all", "--dest-tls-verify=false"]
    subprocess.run([*words, f"oci:{tmp_path}/layout:latest", f"docker://{reference}"], check=True)
    return reference


def fetch(registry: RealRegistry, path: str) -> dict[str, object]:
    request = Request(f"{registry.url}/v2/{path}", headers={"Accept": f"{_INDEX}, {_MANIFEST}"})
    with urlopen(request, timeout=10) as answer:
        value: dict[str, object] = json.load(answer)
        return value


def entries(registry: RealRegistry, name: str) -> list[tuple[str, Sequence[str]]]:
    """Return platform and features of each manifest that a name's index lists."""
    repository, tag = name.split(":")
    listed = fetch(registry, f"{repository}/manifests/{tag}")["manifests"]
    assert isinstance(listed, list)
    found = [one["platform"] for one in listed]
    return [(one["architecture"], one.get("os.features", [])) for one in found]


_LAZY = ["nydus.remoteimage.v1"]


def test_every_platform_is_converted_and_the_config_stays(
    naiad: Naiad, registry: RealRegistry, tmp_path: Path
) -> None:
    source = push(tmp_path, registry, "app:1", "amd64", "arm64")
    target = f"{registry.host}/app:1-lazy"
    told = naiad.json("convert", "--plain-http", "--json", source, target)
    assert isinstance(told, dict)
    assert entries(registry, "app:1-lazy") == [("amd64", []), ("arm64", [])]
    for image in told["images"]:
        manifest = fetch(registry, f"app/manifests/{image['digest']}")
        described = manifest["config"]
        assert isinstance(described, dict)
        kept = fetch(registry, f"app/blobs/{described['digest']}")
        assert kept["config"] == config("amd64")["config"]
        assert image["platform"] == f"linux/{kept['architecture']}"
        place = tmp_path / str(kept["architecture"]) / "out"
        name = f"{registry.host}/app@{image['digest']}"
        naiad.run("unpack", "--plain-http", name, place)
        assert (place / "hello").read_text() == kept["architecture"]


def test_originals_stay_beside_the_lazy_images_where_asked(
    naiad: Naiad, registry: RealRegistry, tmp_path: Path
) -> None:
    source = push(tmp_path, registry, "app:1", "amd64", "arm64")
    target = f"{registry.host}/other/place:both"
    naiad.run("convert", "--plain-http", "--merge", "--platform", "linux/amd64", source, target)
    assert entries(registry, "other/place:both") == [("amd64", []), ("amd64", _LAZY)]
    copy = ["skopeo", "copy", "-q", "--src-tls-verify=false"]
    subprocess.run([*copy, f"docker://{target}", f"oci:{tmp_path}/back:x"], check=True)


def test_an_image_without_an_index_is_converted(
    naiad: Naiad, registry: RealRegistry, tmp_path: Path
) -> None:
    source = push(tmp_path, registry, "app:1", "amd64")
    naiad.run("convert", "--plain-http", source, f"{registry.host}/app:lazy")
    assert entries(registry, "app:lazy") == [("amd64", [])]


def test_what_cannot_be_converted_is_said_in_a_line_and_names_nothing(
    naiad: Naiad, registry: RealRegistry, tmp_path: Path
) -> None:
    source = push(tmp_path, registry, "app:1", "amd64")
    target = f"{registry.host}/app:new"
    lazy = f"{registry.host}/app:lazy"
    naiad.run("convert", "--plain-http", source, lazy)
    for words, said in (
        (["--platform", "linux/riscv64", source, target], "no image for linux/riscv64"),
        ([lazy, target], "loaded lazily already"),
        ([f"{registry.host}/none:1", target], "not found"),
        (["no-reference", target], "begins with its registry"),
        (["--platform", "linux", source, target], "not a platform"),
        ([source, source], "--merge keeps both"),
        ([source, f"{registry.host}/app@sha256:{'0' * 64}"], "a new image gets a tag"),
    ):
        done = naiad.run("convert", "--plain-http", *words, ok=False)
        assert done.returncode in (1, 2), done.stderr
        assert said in done.stderr
    assert "layers" in fetch(registry, "app/manifests/1"), "an ordinary image as before"
    with pytest.raises(AssertionError):
        naiad.run("inspect", "--plain-http", target)
