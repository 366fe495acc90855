"""What is known to be a model."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from fixtures.sketch import Sketch
from fixtures.weights import gguf, safetensors
from fusefs.pagecache.models import Kind, is_mostly_models, kind_of
from rafs import Bootstrap


def _archive(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"data")
    return out.getvalue()


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (safetensors([(4, 4)]), Kind.SAFETENSORS),
        (gguf([16]), Kind.GGUF),
        (_archive("model/data.pkl", "model/data/0"), Kind.PYTORCH),
        (_archive("META-INF/MANIFEST.MF"), None),
        (b"\xff" * 8 + b"{", None),
        (b'{"weight_map": {}}', None),
        (b"\x7fELF", None),
        (b"", None),
    ],
)
def test_a_file_is_known_by_how_it_begins(head: bytes, kind: Kind | None) -> None:
    assert kind_of(head) is kind
    assert kind_of(memoryview(head)) is kind


@pytest.mark.parametrize(
    ("name", "mib", "is_model"),
    [(b"model.gguf", 64, True), (b"model.gguf", 63, False), (b"movie.mkv", 64, False)],
)
def test_an_image_of_models_is_one_by_its_files_names(
    tmp_path: Path, name: bytes, mib: int, is_model: bool
) -> None:
    sketch = Sketch(chunk_size=1 << 20)
    sketch.root.children = {name: sketch.file(bytes(mib << 20)), b"config.json": sketch.file(b"{}")}
    sketch.save(tmp_path)
    assert is_mostly_models(Bootstrap.open(tmp_path / "image.boot")) is is_model
